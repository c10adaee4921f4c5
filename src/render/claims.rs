//! Which rule of a namespace gets which name.

use std::borrow::Cow;
use std::collections::VecDeque;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Names;
use super::policy::NameMode;
use crate::language::FastMap;

/// A rule that wants a name.
#[derive(Clone, Debug)]
pub(super) struct Claimant<'a> {
    /// The name of its object.
    pub object: &'a str,
    /// When the object was created; those that are not yet are the youngest.
    pub created: Option<&'a Time>,
    /// The name as written.
    pub wanted: &'a str,
    /// The name that was chosen before.
    pub chosen: Option<&'a str>,
    /// The name of its version in force, if that may be kept.
    pub in_force: Option<&'a str>,
    /// Whether the item as it is written can be rendered.
    pub valid: bool,
}

/// What a claimant gets.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    /// This name, for the item as it is written.
    Name(String),
    /// The name of its version in force, which stays; with why the item as written has none, if that is the reason.
    Kept(Option<String>),
    /// None; with why, as above.
    Nothing(Option<String>),
}

/// What names depend on beside the claimants.
pub(super) struct Rules<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// How names are made.
    pub mode: NameMode,
    /// Whether the namespace may take base rules' names, and is told who has a name.
    pub privileged: bool,
    /// Who has which name in the cluster.
    pub names: &'a Names,
    /// Where a base rule has the name.
    pub base: &'a dyn Fn(&str) -> Base,
}

/// Assigns the names, so that the outcome does not depend on the order of the claimants.
///
/// What is in force comes first: a rule that goes on under its name, and a rejected one that keeps its last version,
/// can't lose that name to a neighbour's edit. Then the older object has it, and of two of the same second the one whose
/// name comes first.
pub(super) fn assign(claimants: &[Claimant<'_>], rules: &Rules<'_>) -> Vec<Claim> {
    let mut taken = Taken { rules, holders: FastMap::default() };
    let mut claims: Vec<Option<Claim>> = vec![None; claimants.len()];

    for (claimant, claim) in claimants.iter().zip(&mut claims) {
        let Some(in_force) = claimant.in_force else { continue };
        if taken.why(in_force, claimant).is_some() {
            continue;
        }
        if !claimant.valid {
            taken.take(rules.bare(in_force), claimant);
            *claim = Some(Claim::Kept(None));
        } else if rules.forms(claimant).iter().any(|form| rules.is(*form, claimant, in_force)) {
            taken.take(rules.bare(in_force), claimant);
            *claim = Some(Claim::Name(in_force.to_owned()));
        }
    }

    let mut order: Vec<usize> = (0..claimants.len()).collect();
    order.sort_by_key(|&index| {
        claimants
            .get(index)
            .map(|claimant| (claimant.created.is_none(), claimant.created.map(|t| t.0), claimant.object))
    });

    // A rename that can't be had leaves its old name in force, which may be what another rename is after: those that want
    // it are looked at again.
    let mut after: FastMap<&str, Vec<usize>> = FastMap::default();
    for (index, claimant) in claimants.iter().enumerate().filter(|(_, claimant)| claimant.in_force.is_some()) {
        for form in rules.forms(claimant) {
            after.entry(rules.bare_of(*form, claimant)).or_default().push(index);
        }
    }
    let mut waiting: VecDeque<usize> = order.iter().copied().collect();
    while let Some(index) = waiting.pop_front() {
        let (Some(claimant), Some(claim)) = (claimants.get(index), claims.get_mut(index)) else { continue };
        let Some(in_force) = claimant.in_force else { continue };
        if claim.is_some() || !claimant.valid || taken.why(in_force, claimant).is_some() {
            continue;
        }
        if let Err(why) = taken.choose(claimant) {
            let bare = rules.bare(in_force);
            taken.take(bare, claimant);
            *claim = Some(Claim::Kept(Some(why)));
            // What is taken may itself look like a name of this namespace.
            for name in [bare, rules.bare(bare)] {
                waiting.extend(after.get(name).into_iter().flatten());
            }
        }
    }

    for &index in &order {
        let (Some(claimant), Some(claim)) = (claimants.get(index), claims.get_mut(index)) else { continue };
        if claim.is_some() {
            continue;
        }
        *claim = Some(if claimant.valid {
            match taken.choose(claimant) {
                Ok(form) => {
                    taken.take(rules.bare_of(form, claimant), claimant);
                    Claim::Name(rules.name(form, claimant).into_owned())
                }
                Err(why) => match claimant.in_force {
                    Some(in_force) if taken.why(in_force, claimant).is_none() => {
                        taken.take(rules.bare(in_force), claimant);
                        Claim::Kept(Some(why))
                    }
                    _ => Claim::Nothing(Some(why)),
                },
            }
        } else {
            Claim::Nothing(None)
        });
    }
    claims.into_iter().map(|claim| claim.unwrap_or(Claim::Nothing(None))).collect()
}

/// One of the names that a rule may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The one that is written.
    Written,
    /// That behind the namespace and a slash.
    Qualified,
}

impl Rules<'_> {
    /// The names that the claimant's rule may have, the best first.
    fn forms(&self, claimant: &Claimant<'_>) -> &'static [Form] {
        match self.mode {
            NameMode::Qualified => &[Form::Qualified],
            NameMode::Verbatim => &[Form::Written],
            NameMode::Auto if claimant.chosen.is_some_and(|name| self.is(Form::Qualified, claimant, name)) => {
                &[Form::Qualified, Form::Written]
            }
            NameMode::Auto => &[Form::Written, Form::Qualified],
        }
    }

    fn name<'c>(&self, form: Form, claimant: &Claimant<'c>) -> Cow<'c, str> {
        match form {
            Form::Written => claimant.wanted.into(),
            Form::Qualified => format!("{}/{}", self.namespace, claimant.wanted).into(),
        }
    }

    fn is(&self, form: Form, claimant: &Claimant<'_>, name: &str) -> bool {
        match form {
            Form::Written => name == claimant.wanted,
            Form::Qualified => {
                name.strip_suffix(claimant.wanted).and_then(|rest| rest.strip_suffix('/')) == Some(self.namespace)
            }
        }
    }

    /// A name without the namespace before it.
    fn bare<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(self.namespace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
    }

    /// [`Rules::bare`] of the name in that form.
    fn bare_of<'c>(&self, form: Form, claimant: &Claimant<'c>) -> &'c str {
        match form {
            Form::Written => self.bare(claimant.wanted),
            Form::Qualified => claimant.wanted,
        }
    }

    /// The namespace that alone may qualify names in the way of this one: `team-b/x` is not for `team-a` to take.
    fn reserved_for<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (prefix, _) = name.split_once('/')?;
        let is_namespace = prefix.len() <= 63
            && prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && prefix
                .bytes()
                .next()
                .zip(prefix.bytes().last())
                .is_some_and(|(first, last)| first != b'-' && last != b'-');
        (is_namespace && prefix != self.namespace).then_some(prefix)
    }
}

/// The nodes on which one of Falco's own rules has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Nowhere,
    SomeNodes,
    Everywhere,
}

/// The names that are taken within the namespace so far.
struct Taken<'a, 'b> {
    rules: &'b Rules<'b>,
    /// By the name without the namespace before it: the object. Two rules of one namespace with one name are a mistake,
    /// whatever the names are qualified to, so that a name is taken in both of its forms.
    holders: FastMap<&'a str, &'a str>,
}

impl<'a> Taken<'a, '_> {
    fn take(&mut self, bare: &'a str, claimant: &Claimant<'a>) {
        self.holders.insert(bare, claimant.object);
    }

    fn holder(&self, name: &str) -> Option<&'a str> {
        self.holders.get(name).or_else(|| self.holders.get(self.rules.bare(name))).copied()
    }

    /// Why the claimant can't have the name; `None` where it can.
    fn why(&self, name: &str, claimant: &Claimant<'_>) -> Option<String> {
        if let Some(holder) = self.holder(name).filter(|holder| *holder != claimant.object) {
            return Some(format!("FalcoRule `{holder}` of this namespace has the name `{name}`"));
        }
        if let Some(holder) = self.rules.names.held_by_other(name, self.rules.namespace) {
            return Some(if self.rules.privileged {
                format!("a rule of namespace `{holder}` has the name `{name}`")
            } else {
                format!("a rule of another namespace has the name `{name}`")
            });
        }
        if self.rules.privileged {
            return None;
        }
        let is_in_the_way = match (self.rules.base)(name) {
            Base::Nowhere => false,
            // One node's word takes no rule out of force everywhere: the namespace's own names are its own, and a name in
            // force goes on where the rule can have no other.
            Base::SomeNodes => {
                let own = name.strip_prefix(self.rules.namespace).is_some_and(|rest| rest.starts_with('/'));
                !own && (claimant.in_force != Some(name) || self.rules.mode == NameMode::Auto)
            }
            Base::Everywhere => true,
        };
        if is_in_the_way {
            return Some(format!("one of Falco's own rules has the name `{name}`"));
        }
        let prefix = self.rules.reserved_for(name)?;
        Some(format!("names that begin with `{prefix}/` are for a namespace of that name"))
    }

    /// The best name that the claimant can have, or why there is none.
    fn choose(&self, claimant: &Claimant<'_>) -> Result<Form, String> {
        let in_the_way = self.why(claimant.wanted, claimant);
        // Nearly always the name as written is free.
        let wanted = claimant.chosen.is_none_or(|chosen| chosen == claimant.wanted);
        if in_the_way.is_none() && wanted && self.rules.mode != NameMode::Qualified {
            return Ok(Form::Written);
        }
        let neighbour = in_the_way.filter(|_| self.holder(claimant.wanted).is_some());
        let mut reasons = Vec::from_iter(neighbour);
        if reasons.is_empty() {
            for form in self.rules.forms(claimant) {
                match self.why(&self.rules.name(*form, claimant), claimant) {
                    None => return Ok(*form),
                    Some(why) => reasons.push(why),
                }
            }
        }
        Err(reasons.join(", and "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::jiff::Timestamp;

    use super::*;

    /// A valid rule as old as the number says, the lower the older.
    fn rule<'a>(object: &'a str, wanted: &'a str) -> Claimant<'a> {
        Claimant { object, created: None, wanted, chosen: None, in_force: None, valid: true }
    }

    fn assigned(claimants: &[Claimant<'_>], mode: NameMode, privileged: bool) -> Vec<Claim> {
        let mut names = Names::default();
        names.hold("other", BTreeSet::from(["taken".to_owned(), "both".to_owned(), "ns/both".to_owned()]));
        names.hold("ns", BTreeSet::from(["own".to_owned()]));
        let base = |name: &str| match name {
            "base" => Base::Everywhere,
            "somewhere" | "ns/somewhere" => Base::SomeNodes,
            _ => Base::Nowhere,
        };
        assign(claimants, &Rules { namespace: "ns", mode, privileged, names: &names, base: &base })
    }

    fn name(claim: &Claim) -> &str {
        match claim {
            Claim::Name(name) => name,
            Claim::Kept(_) => "(kept)",
            Claim::Nothing(_) => "(nothing)",
        }
    }

    fn why(claim: &Claim) -> &str {
        match claim {
            Claim::Kept(Some(why)) | Claim::Nothing(Some(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_mode_names_as_it_says() {
        for (wanted, auto, qualified, verbatim) in [
            ("free", "free", "ns/free", "free"),
            ("own", "own", "ns/own", "own"),
            ("taken", "ns/taken", "ns/taken", "(nothing)"),
            ("base", "ns/base", "ns/base", "(nothing)"),
            ("somewhere", "ns/somewhere", "ns/somewhere", "(nothing)"),
            ("both", "(nothing)", "(nothing)", "(nothing)"),
            ("other/x", "ns/other/x", "ns/other/x", "(nothing)"),
            ("ns/x", "ns/x", "ns/ns/x", "ns/x"),
            ("Read/Write", "Read/Write", "ns/Read/Write", "Read/Write"),
        ] {
            for (mode, expected) in
                [(NameMode::Auto, auto), (NameMode::Qualified, qualified), (NameMode::Verbatim, verbatim)]
            {
                assert_eq!(name(&assigned(&[rule("o", wanted)], mode, false)[0]), expected, "{wanted} {mode:?}");
            }
        }
    }

    #[test]
    fn one_node_takes_no_rule_out_of_force_by_what_it_says_of_its_falco() {
        let in_force = |wanted, in_force| Claimant { in_force: Some(in_force), ..rule("o", wanted) };
        for (mode, old, new) in [
            (NameMode::Verbatim, "somewhere", "somewhere"),
            (NameMode::Verbatim, "base", "(nothing)"),
            (NameMode::Qualified, "ns/somewhere", "ns/somewhere"),
            // There another name is as good, and no base rule is shadowed.
            (NameMode::Auto, "somewhere", "ns/somewhere"),
            (NameMode::Auto, "ns/somewhere", "ns/somewhere"),
        ] {
            let wanted = old.strip_prefix("ns/").unwrap_or(old);
            assert_eq!(name(&assigned(&[in_force(wanted, old)], mode, false)[0]), new, "{old} {mode:?}");
        }
    }

    #[test]
    fn a_chain_of_renames_of_which_the_last_can_not_be_had_stays() {
        // Each wants the name of the next, and the last one wants a name that is taken.
        let objects: Vec<String> = (0..50).map(|n| format!("rule-{n:02}")).collect();
        let claimants: Vec<Claimant<'_>> = (0..50)
            .map(|n| Claimant {
                in_force: Some(&objects[n]),
                ..rule(&objects[n], objects.get(n + 1).map_or("taken", String::as_str))
            })
            .collect();
        let claims = assigned(&claimants, NameMode::Verbatim, false);
        assert!(claims.iter().all(|claim| matches!(claim, Claim::Kept(Some(_)))), "{claims:?}");
        // Where the last one can have its name, all can.
        let mut free = claimants;
        free[49].wanted = "free";
        let names: Vec<_> =
            assigned(&free, NameMode::Verbatim, false).iter().map(|claim| name(claim).to_owned()).collect();
        assert_eq!(names[..49], objects[1..]);
    }

    #[test]
    fn a_privileged_namespace_takes_base_names_and_is_told_more() {
        assert_eq!(name(&assigned(&[rule("o", "base")], NameMode::Auto, true)[0]), "base");
        let told = assigned(&[rule("o", "taken")], NameMode::Verbatim, true);
        assert_eq!(why(&told[0]), "a rule of namespace `other` has the name `taken`");
        let told = assigned(&[rule("o", "both")], NameMode::Auto, false);
        assert_eq!(
            why(&told[0]),
            "a rule of another namespace has the name `both`, and a rule of another namespace has the name `ns/both`"
        );
    }

    #[test]
    fn a_chosen_name_stays_while_it_belongs_to_the_rule() {
        for (chosen, expected) in [("ns/free", "ns/free"), ("free", "free"), ("elsewhere", "free")] {
            let claimant = Claimant { chosen: Some(chosen), ..rule("o", "free") };
            assert_eq!(name(&assigned(&[claimant], NameMode::Auto, false)[0]), expected);
        }
        let lost = Claimant { chosen: Some("taken"), in_force: Some("taken"), ..rule("o", "taken") };
        assert_eq!(name(&assigned(&[lost], NameMode::Auto, false)[0]), "ns/taken");
    }

    #[test]
    fn of_two_rules_with_one_name_the_older_has_it() {
        let (first, second) = (Time(Timestamp::from_second(1).unwrap()), Time(Timestamp::from_second(2).unwrap()));
        let old = Claimant { created: Some(&first), ..rule("z", "x") };
        let young = Claimant { created: Some(&second), ..rule("a", "x") };
        let twin = Claimant { created: Some(&first), ..rule("zz", "x") };
        for order in [[&old, &young, &twin], [&twin, &young, &old], [&young, &twin, &old]] {
            let claimants: Vec<_> = order.map(Clone::clone).to_vec();
            let claims = assigned(&claimants, NameMode::Auto, false);
            for (claimant, claim) in claimants.iter().zip(&claims) {
                match claimant.object {
                    "z" => assert_eq!(name(claim), "x"),
                    _ => assert_eq!(why(claim), "FalcoRule `z` of this namespace has the name `x`"),
                }
            }
        }
    }

    #[test]
    fn what_is_in_force_is_not_lost_to_a_neighbour() {
        let first = Time(Timestamp::from_second(1).unwrap());
        // A broken rule keeps its name although an older object now wants it.
        let broken = Claimant { in_force: Some("x"), valid: false, ..rule("broken", "x") };
        let older = Claimant { created: Some(&first), ..rule("older", "x") };
        let claims = assigned(&[older.clone(), broken.clone()], NameMode::Auto, false);
        assert_eq!((name(&claims[0]), name(&claims[1])), ("(nothing)", "(kept)"));
        // An older one that is renamed to a neighbour's name keeps its own version in force.
        let renamed = Claimant { in_force: Some("y"), ..older };
        let going_on = Claimant { in_force: Some("x"), ..rule("b", "x") };
        let claims = assigned(&[renamed.clone(), going_on], NameMode::Auto, false);
        assert_eq!((name(&claims[0]), name(&claims[1])), ("(kept)", "x"));
        // Two that swap their names get them; a third that is after a name that stays gets none.
        let swapped = Claimant { in_force: Some("x"), ..rule("b", "y") };
        let claims = assigned(&[renamed.clone(), swapped.clone()], NameMode::Auto, false);
        assert_eq!((name(&claims[0]), name(&claims[1])), ("x", "y"));
        let claims = assigned(&[rule("new", "y"), renamed, broken], NameMode::Auto, false);
        assert_eq!(claims.iter().map(name).collect::<Vec<_>>(), ["(nothing)", "(kept)", "(kept)"]);
    }

    #[test]
    fn a_kept_version_needs_its_name() {
        for (in_force, expected) in [("free", "(kept)"), ("taken", "(nothing)"), ("base", "(nothing)")] {
            let broken = Claimant { in_force: Some(in_force), valid: false, ..rule("broken", "x") };
            assert_eq!(name(&assigned(&[broken], NameMode::Auto, false)[0]), expected);
        }
    }
}
