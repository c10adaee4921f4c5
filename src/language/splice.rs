//! Conditions as they are written, with lists and macros of the namespace in the place of their names.
//!
//! That takes far less than to print the tree, and leaves the rest as its author wrote it. Where it is not plainly the
//! same, the tree is printed.

use super::catalog::Catalog;
use super::definitions::Definitions;
use super::diagnostic::Span;
use super::limits;
use super::print::{ExprKind, Written};
use super::tree::{Check, Expr, Rhs, ValueKind, ValueList};

/// A condition for a Falco with the base lists of the catalogue, from its text and the tree that was read from it with so
/// many levels of parentheses. `None` where it can't be had from the text, or would be longer than the limit.
pub(crate) fn splice(
    text: &str,
    (tree, nesting): (&Expr<'_>, usize),
    (definitions, catalog): (&Definitions<'_>, &Catalog),
    limit: usize,
) -> Option<Written> {
    // Other blanks are part of what they stand by.
    let text = text.trim_end_matches(is_blank);
    // What is written on several lines is put on one by printing it; and next to a backspace, which is a blank in some
    // places and part of a value in others, words may not stay apart. Without a way out in between, many bytes are looked
    // at in one step.
    if text.len() > limit || text.bytes().fold(false, |any, byte| any | byte.is_ascii_control()) {
        return None;
    }
    let done = text.len() - text.trim_start_matches(is_blank).len();
    let out = Written { text: String::with_capacity(2 * text.len()), ..Written::default() };
    let mut splicer = Splicer { text, done, out, definitions, catalog, limit };
    splicer.expr(tree, ExprKind::Leaf)?;
    splicer.up_to(text.len())?;
    let Splicer { mut out, .. } = splicer;
    out.nesting += nesting;
    let meant = |hit: &Span| out.base_lists.binary_search(hit).is_ok();
    let fits = out.nesting <= limits::NESTING && catalog.pasted_over(&out.text).iter().all(meant);
    fits.then_some(out)
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

struct Splicer<'a> {
    text: &'a str,
    /// How much of the text is done with.
    done: usize,
    out: Written,
    definitions: &'a Definitions<'a>,
    catalog: &'a Catalog,
    limit: usize,
}

impl Splicer<'_> {
    /// Copies the text up to a place.
    fn up_to(&mut self, end: usize) -> Option<()> {
        self.out.text.push_str(self.text.get(self.done..end)?);
        self.done = end;
        (self.out.text.len() <= self.limit).then_some(())
    }

    /// Puts something in the place of a name.
    fn put(&mut self, name: Span, written: &Written, parentheses: bool) -> Option<()> {
        self.up_to(name.start as usize)?;
        self.done = name.end as usize;
        if parentheses {
            self.out.text.push('(');
        }
        let Written { text, base_lists, nesting } = &mut self.out;
        written.append_to(text, base_lists);
        *nesting = (*nesting).max(written.nesting + 1);
        if parentheses {
            self.out.text.push(')');
        }
        Some(())
    }

    fn expr(&mut self, expr: &Expr<'_>, of: ExprKind) -> Option<()> {
        match expr {
            Expr::And(parts) | Expr::Or(parts) => parts.iter().try_for_each(|part| self.expr(part, expr.kind())),
            Expr::Not(inner) => self.expr(inner, ExprKind::Not),
            Expr::Check(Check { rhs: Rhs::List(list), .. }) => self.list(list),
            Expr::Check(_) => Some(()),
            Expr::Macro(word) => match self.definitions.macro_(&word.text) {
                Some(own) => self.put(word.span, own.written.as_ref()?, of.encloses(own.extent.kind)),
                None => Some(()),
            },
        }
    }

    fn list(&mut self, list: &ValueList<'_>) -> Option<()> {
        let mut bare = list.values.iter().filter(|value| value.kind == ValueKind::Bare);
        bare.try_for_each(|value| {
            if let Some(own) = self.definitions.list(&value.text) {
                // Several can't stand without parentheses, nor nothing between commas.
                let fits = list.parentheses && !own.is_empty();
                return self.put(value.span, own.written.as_ref().filter(|_| fits)?, false);
            }
            if self.catalog.has_list(&value.text) && list.parentheses {
                self.up_to(value.span.start as usize)?;
                let start = self.out.text.len();
                self.up_to(value.span.end as usize)?;
                self.out.base_lists.push(Span::new(start, self.out.text.len()));
            }
            Some(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Definitions, ListText, MacroText, RuleText, check_condition, parse};
    use super::*;

    /// What becomes of a condition, with the list `shells` and the macros `spawned`, `named` and `deep`; it must mean what
    /// the tree means.
    fn condition(text: &str) -> String {
        let catalog = Catalog::falco();
        let items = ["bash".to_owned(), "a b".to_owned()];
        let deep = format!("{}evt.num > 1{}", "(".repeat(60), ")".repeat(60));
        let macros = [
            ("spawned", "  evt.type = execve and proc.name in ( shells )\n"),
            ("named", "proc.name = bash"),
            ("deep", deep.as_str()),
        ];
        let macros = macros.map(|(name, condition)| MacroText { name, condition });
        let (definitions, findings) =
            Definitions::compile(&[ListText { name: "shells", items: &items }], &macros, catalog);
        assert!(findings.macros.iter().chain(&findings.lists).all(Vec::is_empty), "{findings:?}");
        let rule = RuleText { condition: text, ..RuleText::default() };
        let checked = check_condition(&rule, &definitions, catalog);
        let expanded = checked.expanded(&definitions, catalog).expect("the condition is one");
        let written = checked.condition.expect("the condition is one");
        let read = parse(&written);
        assert!(read.diagnostics.is_empty(), "{written:?}: {:?}", read.diagnostics);
        assert_eq!(read.tree.map(Expr::unplaced), Some(expanded.unplaced()), "{written:?}");
        written
    }

    #[test]
    fn what_names_nothing_stays_as_it_is_written() {
        let spawned = "evt.type = execve and proc.name in ( bash, \"a b\" )";
        for (text, written) in [
            (" spawned ", spawned.to_owned()),
            ("not spawned  and ((evt.num>1))", format!("not ({spawned})  and ((evt.num>1))")),
            ("(spawned)or evt.num > 1", format!("({spawned})or evt.num > 1")),
            ("named and fd.name != x\u{a0}\r\n ", "proc.name = bash and fd.name != x\u{a0}".to_owned()),
            ("named and not named", "proc.name = bash and not proc.name = bash".to_owned()),
            ("evt.num > 1 and proc.name in('x',shells)", "evt.num > 1 and proc.name in('x',bash, \"a b\")".to_owned()),
        ] {
            assert_eq!(condition(text), written);
        }
    }

    #[test]
    fn what_is_not_plainly_the_same_is_printed() {
        let printed = "proc.name = bash and evt.num > 1";
        for text in ["named\u{8}and evt.num > 1", "named\nand evt.num > 1", "\tnamed and evt.num  > 1"] {
            assert_eq!(condition(text), printed, "{text:?}");
        }
        // As written, the parentheses of both would be too many.
        let nested = format!("{}deep{} and evt.num > 1", "(".repeat(50), ")".repeat(50));
        assert_eq!(condition(&nested), "evt.num > 1 and evt.num > 1");
    }
}
