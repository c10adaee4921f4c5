//! The tree of a condition.

use std::borrow::Cow;

use super::diagnostic::Span;

/// A condition, or a part of one.
///
/// The parser never makes a tree deeper than a few hundred levels, so walks over it may recurse.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr<'a> {
    /// All of at least two hold.
    And(Vec<Expr<'a>>),
    /// One of at least two holds.
    Or(Vec<Expr<'a>>),
    /// It does not hold.
    Not(Box<Expr<'a>>),
    /// An event is compared with something.
    Check(Check<'a>),
    /// The macro of this name.
    Macro(Word<'a>),
}

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Word<'a> {
    /// The word.
    pub text: Cow<'a, str>,
    /// Where it stands.
    pub span: Span,
}

/// A comparison: `proc.name in (bash, sh)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Check<'a> {
    /// What of the event is compared.
    pub operand: Operand<'a>,
    /// How.
    pub op: Op,
    /// Where the operator stands.
    pub op_span: Span,
    /// How many of the values must hold, where that is said.
    pub modifier: Option<Modifier>,
    /// With what.
    pub rhs: Rhs<'a>,
    /// Where the whole stands.
    pub span: Span,
}

/// What stands left of an operator, or right of it: a field, or what is made of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A field.
    Field(Field<'a>),
    /// What a transformer makes of its arguments.
    Transform(Box<Transform<'a>>),
}

/// A field of an event: `proc.aname[2]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field<'a> {
    /// Its name, such as `proc.aname`.
    pub name: Cow<'a, str>,
    /// Its argument.
    pub argument: Option<Box<Word<'a>>>,
    /// Where it stands.
    pub span: Span,
}

/// A transformer and what it is applied to: `tolower(proc.name)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform<'a> {
    /// Which.
    pub transformer: Transformer,
    /// What it is applied to.
    pub arguments: Vec<Argument<'a>>,
    /// What stands in brackets behind it: `getopt(proc.args, "o:")[o]`.
    pub index: Option<Word<'a>>,
    /// Where it stands.
    pub span: Span,
}

/// What a transformer is applied to.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument<'a> {
    /// A field, or what another transformer makes.
    Operand(Operand<'a>),
    /// A number, as written.
    Number(Word<'a>),
    /// A quoted text, without its quotes.
    Text(Word<'a>),
    /// Several in parentheses, with no list among them.
    List(Vec<Argument<'a>>, Span),
}

/// What an event is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Rhs<'a> {
    /// Nothing: `exists`.
    Nothing,
    /// One value.
    Value(Value<'a>),
    /// Several.
    List(ValueList<'a>),
    /// Another field of the event: `val(proc.pname)`, `tolower(proc.pname)`.
    Operand(Operand<'a>),
}

/// Values in parentheses, or a lone word in their place.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueList<'a> {
    /// The values.
    pub values: Vec<Value<'a>>,
    /// Whether parentheses stand around them.
    pub parentheses: bool,
    /// Where they stand.
    pub span: Span,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Value<'a> {
    /// The text, without quotes and escapes.
    pub text: Cow<'a, str>,
    /// How it is written.
    pub kind: ValueKind,
    /// Where it stands.
    pub span: Span,
}

/// How a constant is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Without quotes; among several values it may be the name of a list.
    Bare,
    /// In quotes.
    Quoted,
    /// The name of a base list, known to be one.
    BaseList,
}

/// Declares a set of words of the language.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal, )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$doc])* $variant, )* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The word, as written.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }
    };
}

words! {
    /// An operator. In the order in which they are tried: the first whose word the text begins with is it.
    Op {
        /// The event has the field.
        Exists = "exists",
        /// Less or equal.
        Le = "<=",
        /// Less.
        Lt = "<",
        /// Greater or equal.
        Ge = ">=",
        /// Greater.
        Gt = ">",
        /// Equal.
        EqEq = "==",
        /// Equal.
        Eq = "=",
        /// Not equal; false where the event lacks the field.
        Ne = "!=",
        /// The whole text fits a pattern of `*`, `?` and `[…]`.
        Glob = "glob",
        /// As `glob`, ignoring case.
        Iglob = "iglob",
        /// The text holds another.
        Contains = "contains",
        /// As `contains`, ignoring case.
        Icontains = "icontains",
        /// The bytes hold others, given in hexadecimal.
        Bcontains = "bcontains",
        /// The text begins with another.
        Startswith = "startswith",
        /// The bytes begin with others, given in hexadecimal.
        Bstartswith = "bstartswith",
        /// The text ends with another.
        Endswith = "endswith",
        /// The whole text fits a regular expression.
        Regex = "regex",
        /// One of several values is one of the list.
        Intersects = "intersects",
        /// The value is one of the list; of several, all are.
        In = "in",
        /// One of the list is a leading part of the path.
        Pmatch = "pmatch",
    }
}

impl Op {
    /// `<` and the like, whose right side is a number.
    #[must_use]
    pub const fn is_numeric(self) -> bool {
        matches!(self, Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    /// Whose right side is a list.
    #[must_use]
    pub const fn takes_list(self) -> bool {
        matches!(self, Self::In | Self::Intersects | Self::Pmatch)
    }

    /// Whose right side is one value, or a list with a modifier.
    #[must_use]
    pub const fn takes_text(self) -> bool {
        !self.is_numeric() && !self.takes_list() && !matches!(self, Self::Exists)
    }

    /// Written with a sign and not with a word.
    #[must_use]
    pub const fn is_sign(self) -> bool {
        matches!(self, Self::Eq | Self::EqEq | Self::Ne) || self.is_numeric()
    }
}

words! {
    /// How many values of a list must hold.
    Modifier {
        /// Exactly one.
        Oneof = "oneof",
        /// At least one.
        Anyof = "anyof",
        /// All.
        Allof = "allof",
    }
}

words! {
    /// A transformer.
    Transformer {
        /// The field itself, on the right of an operator.
        Val = "val",
        /// In lower case.
        Tolower = "tolower",
        /// In upper case.
        Toupper = "toupper",
        /// Decoded from base64.
        B64 = "b64",
        /// What follows the last slash.
        Basename = "basename",
        /// How long it is, or how many there are.
        Len = "len",
        /// A list put together with a separator.
        Join = "join",
        /// Texts put together.
        Concat = "concat",
        /// An option of a command line.
        Getopt = "getopt",
    }
}

impl<'a> Expr<'a> {
    /// All of these; the one itself where there is but one. `None` where there is none.
    #[must_use]
    pub fn all(mut parts: Vec<Self>) -> Option<Self> {
        if parts.len() > 1 { Some(Self::And(parts)) } else { parts.pop() }
    }

    /// One of these; the one itself where there is but one. `None` where there is none.
    #[must_use]
    pub fn any(mut parts: Vec<Self>) -> Option<Self> {
        if parts.len() > 1 { Some(Self::Or(parts)) } else { parts.pop() }
    }

    /// Not this.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// `field = value`, whatever the value holds.
    #[must_use]
    pub fn equals(field: &'a str, value: &'a str) -> Self {
        let span = Span::default();
        Self::Check(Check {
            operand: Operand::Field(Field { name: field.into(), argument: None, span }),
            op: Op::Eq,
            op_span: span,
            modifier: None,
            rhs: Rhs::Value(Value::of(value)),
            span,
        })
    }

    /// Confines the condition to the events of a namespace: `field = namespace and (condition)`. What is confined is the
    /// tree, so no text in it can get out.
    #[must_use]
    pub fn wrap(self, field: &'a str, namespace: &'a str) -> Self {
        Self::And(vec![Self::equals(field, namespace), self])
    }

    /// What [`Expr::wrap`] adds to [`Expr::nodes`].
    pub const GUARD_NODES: usize = 2;

    /// Where its first and last words stand.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::And(parts) | Self::Or(parts) => match (parts.first(), parts.last()) {
                (Some(first), Some(last)) => first.span().to(last.span()),
                _ => Span::default(),
            },
            Self::Not(inner) => inner.span(),
            Self::Check(check) => check.span,
            Self::Macro(word) => word.span,
        }
    }

    /// Operators, checks and values in it.
    #[must_use]
    pub fn nodes(&self) -> usize {
        match self {
            Self::And(parts) | Self::Or(parts) => 1 + parts.iter().map(Self::nodes).sum::<usize>(),
            Self::Not(inner) => 1 + inner.nodes(),
            Self::Check(Check { rhs: Rhs::List(list), .. }) => 1 + list.values.len(),
            Self::Check(_) | Self::Macro(_) => 1,
        }
    }

    /// Levels of parentheses that it takes to write it, each operator counting as one.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::And(parts) | Self::Or(parts) => 1 + parts.iter().map(Self::depth).max().unwrap_or(0),
            Self::Not(inner) => 1 + inner.depth(),
            Self::Check(_) | Self::Macro(_) => 0,
        }
    }

    /// What comes in its place where it is nothing but the name of a macro, by the macros' trees; else itself. A chain of
    /// names is followed to its end.
    pub(crate) fn meant<'e>(&'e self, tree_of: impl Fn(&str) -> Option<&'e Self>) -> &'e Self {
        let mut expr = self;
        while let Self::Macro(word) = expr
            && let Some(tree) = tree_of(&word.text)
        {
            expr = tree;
        }
        expr
    }

    /// Calls back for each check, in order.
    pub fn each_check<'e>(&'e self, f: &mut impl FnMut(&'e Check<'a>)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.each_check(f)),
            Self::Not(inner) => inner.each_check(f),
            Self::Check(check) => f(check),
            Self::Macro(_) => {}
        }
    }

    /// Calls back for each macro that is referred to, in order.
    pub fn each_macro<'e>(&'e self, f: &mut impl FnMut(&'e Word<'a>)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.each_macro(f)),
            Self::Not(inner) => inner.each_macro(f),
            Self::Check(_) => {}
            Self::Macro(word) => f(word),
        }
    }

    /// The same tree for longer than the text that it was read from.
    #[must_use]
    pub fn into_owned(self) -> Expr<'static> {
        let all = |parts: Vec<Self>| parts.into_iter().map(Self::into_owned).collect();
        match self {
            Self::And(parts) => Expr::And(all(parts)),
            Self::Or(parts) => Expr::Or(all(parts)),
            Self::Not(inner) => Expr::Not(Box::new(inner.into_owned())),
            Self::Check(check) => Expr::Check(check.into_owned()),
            Self::Macro(word) => Expr::Macro(word.into_owned()),
        }
    }

    /// The same tree as if it stood nowhere, to compare it with another.
    #[must_use]
    pub fn unplaced(mut self) -> Self {
        self.unplace();
        self
    }

    fn unplace(&mut self) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter_mut().for_each(Self::unplace),
            Self::Not(inner) => inner.unplace(),
            Self::Macro(word) => word.span = Span::default(),
            Self::Check(check) => check.unplace(),
        }
    }
}

/// A text that outlives what it was read from.
fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl Word<'_> {
    fn into_owned(self) -> Word<'static> {
        Word { text: owned(self.text), span: self.span }
    }
}

impl Check<'_> {
    fn into_owned(self) -> Check<'static> {
        let Self { operand, op, op_span, modifier, rhs, span } = self;
        let rhs = match rhs {
            Rhs::Nothing => Rhs::Nothing,
            Rhs::Value(value) => Rhs::Value(value.into_owned()),
            Rhs::List(ValueList { values, parentheses, span }) => {
                Rhs::List(ValueList { values: values.into_iter().map(Value::into_owned).collect(), parentheses, span })
            }
            Rhs::Operand(operand) => Rhs::Operand(operand.into_owned()),
        };
        Check { operand: operand.into_owned(), op, op_span, modifier, rhs, span }
    }

    pub(crate) fn unplace(&mut self) {
        self.span = Span::default();
        self.op_span = Span::default();
        self.operand.unplace();
        match &mut self.rhs {
            Rhs::Nothing => {}
            Rhs::Value(value) => value.span = Span::default(),
            Rhs::List(list) => {
                list.span = Span::default();
                list.values.iter_mut().for_each(|value| value.span = Span::default());
            }
            Rhs::Operand(operand) => operand.unplace(),
        }
    }
}

impl<'a> Operand<'a> {
    /// Where it stands.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Field(field) => field.span,
            Self::Transform(transform) => transform.span,
        }
    }

    /// Calls back for each field in it.
    pub fn each_field<'e>(&'e self, f: &mut impl FnMut(&'e Field<'a>)) {
        match self {
            Self::Field(field) => f(field),
            Self::Transform(transform) => transform.arguments.iter().for_each(|argument| argument.each_field(f)),
        }
    }

    fn into_owned(self) -> Operand<'static> {
        match self {
            Self::Field(Field { name, argument, span }) => {
                let argument = argument.map(|word| Box::new(word.into_owned()));
                Operand::Field(Field { name: owned(name), argument, span })
            }
            Self::Transform(transform) => {
                let Transform { transformer, arguments, index, span } = *transform;
                let arguments = arguments.into_iter().map(Argument::into_owned).collect();
                Operand::Transform(Box::new(Transform {
                    transformer,
                    arguments,
                    index: index.map(Word::into_owned),
                    span,
                }))
            }
        }
    }

    pub(crate) fn unplace(&mut self) {
        match self {
            Self::Field(field) => {
                field.span = Span::default();
                field.argument.iter_mut().for_each(|word| word.span = Span::default());
            }
            Self::Transform(transform) => {
                transform.span = Span::default();
                transform.index.iter_mut().for_each(|word| word.span = Span::default());
                transform.arguments.iter_mut().for_each(Argument::unplace);
            }
        }
    }
}

impl<'a> Argument<'a> {
    /// Where it stands.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Operand(operand) => operand.span(),
            Self::Number(word) | Self::Text(word) => word.span,
            Self::List(_, span) => *span,
        }
    }

    fn each_field<'e>(&'e self, f: &mut impl FnMut(&'e Field<'a>)) {
        match self {
            Self::Operand(operand) => operand.each_field(f),
            Self::Number(_) | Self::Text(_) => {}
            Self::List(items, _) => items.iter().for_each(|item| item.each_field(f)),
        }
    }

    fn into_owned(self) -> Argument<'static> {
        match self {
            Self::Operand(operand) => Argument::Operand(operand.into_owned()),
            Self::Number(word) => Argument::Number(word.into_owned()),
            Self::Text(word) => Argument::Text(word.into_owned()),
            Self::List(items, span) => Argument::List(items.into_iter().map(Self::into_owned).collect(), span),
        }
    }

    fn unplace(&mut self) {
        match self {
            Self::Operand(operand) => operand.unplace(),
            Self::Number(word) | Self::Text(word) => word.span = Span::default(),
            Self::List(items, span) => {
                *span = Span::default();
                items.iter_mut().for_each(Self::unplace);
            }
        }
    }
}

impl<'a> Value<'a> {
    /// The value for a text, written as people do: without quotes where that is plainly the same.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let kind = if super::print::is_plain(text) { ValueKind::Bare } else { ValueKind::Quoted };
        Self { text: text.into(), kind, span: Span::default() }
    }

    /// The same value for longer than the text that it was read from.
    pub(crate) fn into_owned(self) -> Value<'static> {
        Value { text: owned(self.text), kind: self.kind, span: self.span }
    }
}
