//! What a source text names: parts of this crate and foreign crates, each with its line.
//!
//! Everything is looked at: `use` lists however nested, paths in types, patterns and expressions, and the tokens of
//! macros and attributes. Only what is compiled for tests alone is passed over.
//! What is left out: names are not resolved. A part of this crate that was imported counts where it was imported.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::{Attribute, Meta, UseTree, punctuated::Punctuated, token::Comma, visit::Visit};

/// One place where something is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    /// From 1.
    pub line: usize,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// A path from the root of this crate, without `crate`.
    Ours(Vec<String>),
    /// A foreign crate, as code writes it.
    Foreign(String),
    /// A macro, without its `!`.
    Macro(String),
    /// A path that does not begin in this crate, as it is written: of the standard library, a foreign crate, or of what
    /// was imported.
    Path(Vec<String>),
}

/// A file, and what it is as a module.
pub(super) struct Names {
    pub mentions: Vec<Mention>,
    /// Modules in files of their own that are compiled for tests alone, as paths from the root.
    pub tests: Vec<Vec<String>>,
}

/// All that `text` names, being the module `module` (a path from the root), where `foreign` are the crates there are.
pub(super) fn names(text: &str, module: &[String], foreign: &BTreeSet<String>) -> Result<Names, syn::Error> {
    let file = syn::parse_file(text)?;
    let mut reader =
        Reader { module: module.to_vec(), foreign, names: Names { mentions: Vec::new(), tests: Vec::new() } };
    reader.visit_file(&file);
    Ok(reader.names)
}

struct Reader<'a> {
    module: Vec<String>,
    foreign: &'a BTreeSet<String>,
    names: Names,
}

impl Reader<'_> {
    fn note(&mut self, line: usize, what: What) {
        self.names.mentions.push(Mention { line, what });
    }

    /// `in_use`: a name alone counts; elsewhere it is as a rule a variable.
    fn path(&mut self, line: usize, segments: &[String], in_use: bool) {
        let Some(first) = segments.first() else { return };
        let mut base = match first.as_str() {
            "crate" | "distilface" => Vec::new(),
            "self" | "super" => self.module.clone(),
            name => {
                if self.foreign.contains(name) && (in_use || segments.len() > 1) {
                    self.note(line, What::Foreign(name.to_owned()));
                }
                self.note(line, What::Path(segments.to_vec()));
                return;
            }
        };
        for segment in segments {
            match segment.as_str() {
                "crate" | "distilface" | "self" => {}
                "super" => drop(base.pop()),
                name => base.push(name.to_owned()),
            }
        }
        self.note(line, What::Ours(base));
    }

    fn use_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[plain(name)]].concat();
        match tree {
            UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) => self.path(name.ident.span().start().line, &with(&name.ident), true),
            UseTree::Rename(name) => self.path(name.ident.span().start().line, &with(&name.ident), true),
            UseTree::Glob(glob) => {
                let all = [before, &["*".to_owned()]].concat();
                self.path(glob.star_token.spans[0].start().line, &all, true);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, before)),
        }
    }

    /// Paths and macros among tokens that nobody has parsed.
    fn tokens(&mut self, tokens: TokenStream, before: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let colons = |at: usize| {
            let colon = |at: usize| match tokens.get(at) {
                Some(TokenTree::Punct(p)) if p.as_char() == ':' => Some(p.spacing()),
                _ => None,
            };
            colon(at) == Some(Spacing::Joint) && colon(at + 1).is_some()
        };
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream(), &[]),
                TokenTree::Ident(first) => {
                    let line = first.span().start().line;
                    let mut path = before.to_vec();
                    path.push(plain(first));
                    let mut list = None;
                    while colons(at + 1) {
                        match tokens.get(at + 3) {
                            Some(TokenTree::Ident(next)) => path.push(plain(next)),
                            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                                list = Some(group.stream());
                            }
                            _ => break,
                        }
                        at += 3;
                    }
                    match list {
                        Some(list) => self.tokens(list, &path),
                        None => {
                            if matches!(tokens.get(at + 1), Some(TokenTree::Punct(p)) if p.as_char() == '!') {
                                self.note(line, What::Macro(path[path.len() - 1].clone()));
                            }
                            self.path(line, &path, !before.is_empty());
                        }
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }
}

/// Without `r#`.
fn plain(ident: &proc_macro2::Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map_or(name.clone(), str::to_owned)
}

/// Whether the attributes keep what bears them out of every build but that of tests.
fn for_tests(attributes: &[Attribute]) -> bool {
    fn implies_test(meta: &Meta) -> bool {
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) => {
                let Ok(inner) = list.parse_args_with(Punctuated::<Meta, Comma>::parse_terminated) else {
                    return false;
                };
                if list.path.is_ident("all") {
                    inner.iter().any(implies_test)
                } else {
                    list.path.is_ident("any") && !inner.is_empty() && inner.iter().all(implies_test)
                }
            }
            Meta::NameValue(_) => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|meta| implies_test(&meta))
    })
}

/// Visits what is not for tests alone.
macro_rules! unless_for_tests {
    ($($visit:ident: $node:ident),*) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !for_tests(&node.attrs) {
                syn::visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Reader<'_> {
    unless_for_tests!(
        visit_item_const: ItemConst, visit_item_enum: ItemEnum, visit_item_fn: ItemFn,
        visit_item_foreign_mod: ItemForeignMod, visit_item_impl: ItemImpl, visit_item_macro: ItemMacro,
        visit_item_static: ItemStatic, visit_item_struct: ItemStruct, visit_item_trait: ItemTrait,
        visit_item_type: ItemType, visit_item_union: ItemUnion,
        visit_impl_item_const: ImplItemConst, visit_impl_item_fn: ImplItemFn, visit_impl_item_type: ImplItemType,
        visit_impl_item_macro: ImplItemMacro, visit_trait_item_fn: TraitItemFn,
        visit_field: Field, visit_variant: Variant, visit_arm: Arm, visit_field_value: FieldValue,
        visit_local: Local, visit_stmt_macro: StmtMacro, visit_expr_block: ExprBlock, visit_expr_macro: ExprMacro
    );

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        self.module.push(plain(&node.ident));
        if for_tests(&node.attrs) {
            self.names.tests.push(self.module.clone());
        } else {
            syn::visit::visit_item_mod(self, node);
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        if !for_tests(&node.attrs) {
            self.use_tree(&node.tree, &[]);
        }
    }

    fn visit_item_extern_crate(&mut self, node: &'ast syn::ItemExternCrate) {
        if !for_tests(&node.attrs) {
            self.path(node.ident.span().start().line, &[plain(&node.ident)], true);
        }
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        let segments: Vec<String> = node.segments.iter().map(|segment| plain(&segment.ident)).collect();
        if let Some(first) = node.segments.first() {
            self.path(first.ident.span().start().line, &segments, node.leading_colon.is_some());
        }
        syn::visit::visit_path(self, node);
    }

    fn visit_attribute(&mut self, node: &'ast Attribute) {
        self.visit_path(node.path());
        match &node.meta {
            Meta::List(list) => self.tokens(list.tokens.clone(), &[]),
            Meta::NameValue(value) => self.visit_expr(&value.value),
            Meta::Path(_) => {}
        }
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        if let Some(last) = node.path.segments.last() {
            self.note(last.ident.span().start().line, What::Macro(plain(&last.ident)));
        }
        self.visit_path(&node.path);
        self.tokens(node.tokens.clone(), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Names {
        let foreign = ["sled", "ort", "serde"].map(str::to_owned).into();
        names(text, &["cli".to_owned(), "ingest".to_owned()], &foreign).expect("the text is Rust")
    }

    fn ours(text: &str) -> Vec<(usize, String)> {
        let of = |mention: Mention| match mention.what {
            What::Ours(path) => Some((mention.line, path.join("::"))),
            _ => None,
        };
        read(text).mentions.into_iter().filter_map(of).collect()
    }

    fn foreign(text: &str) -> Vec<(usize, String)> {
        let of = |mention: Mention| match mention.what {
            What::Foreign(name) => Some((mention.line, name)),
            _ => None,
        };
        read(text).mentions.into_iter().filter_map(of).collect()
    }

    #[test]
    fn a_use_is_seen_in_every_form() {
        for text in [
            "use crate::store::Disk;",
            "use crate::{index::Slot, store::Disk};",
            "pub(crate) use crate::{\n  store::{\n self, disk::{Disk as D}}};",
            "use super::super::store::Disk;",
            "use crate::store::*;",
            "use crate::store;",
            "use distilface::store::Disk;",
            "fn f() { use crate::store::Disk; }",
            "mod inner { use super::super::super::store::Disk; }",
        ] {
            assert!(ours(text).iter().any(|(_, path)| path.starts_with("store")), "{text}: {:?}", ours(text));
        }
        for text in
            ["use sled;", "use sled::Db;", "use {serde::Serialize, sled::{self, Db as D}};", "use sled as s;"]
        {
            assert!(foreign(text).contains(&(1, "sled".to_owned())), "{text}: {:?}", foreign(text));
        }
        assert!(foreign("extern crate sled;").len() == 1 && foreign("use ::sled::Db;").len() == 1);
    }

    #[test]
    fn a_full_path_is_seen_wherever_it_stands() {
        for text in [
            "fn f() -> u8 { crate::store::open() }",
            "fn f(x: crate::store::Disk) {}",
            "fn f() { match x { crate::store::Kind::A => {} } }",
            "impl crate::store::Disk for X {}",
            "struct X { disk: Box<dyn crate::store::Disk> }",
            "fn f() { <X as crate::store::Disk>::open(); }",
            "const X: usize = crate::store::MAX;",
            "fn f() { super::super::store::open() }",
            "#[derive(crate::store::Record)] struct X;",
            "#[serde(with = \"x\")] struct X(#[cfg(any(test, unix))] crate::store::Disk);",
        ] {
            assert!(ours(text).iter().any(|(_, path)| path.starts_with("store")), "{text}: {:?}", ours(text));
            let text = text.replace("crate::store", "sled").replace("super::super::store", "sled");
            assert_eq!(foreign(&text), [(1, "sled".to_owned())], "{text}");
        }
    }

    #[test]
    fn tokens_of_macros_are_looked_at() {
        for text in [
            "fn f() { assert!(crate::store::open().is_ok()); }",
            "fn f() { vec![vec![crate::store::MAX]]; }",
            "macro_rules! m { () => { $crate::store::open() } }",
            "macro_rules! m { () => { use crate::{index::Slot, store::{self, Disk}}; } }",
        ] {
            assert!(ours(text).iter().any(|(_, path)| path.starts_with("store")), "{text}: {:?}", ours(text));
        }
        assert_eq!(foreign("fn f() { assert!(\n  sled::open().is_ok()); }"), [(2, "sled".to_owned())]);
        assert_eq!(foreign("fn f() { sled::block!(x); }"), [(1, "sled".to_owned())]);
        let prints = read("fn f() { tracing::info!(a = { println!(\"x\") }); eprintln!(); }");
        let macros: Vec<What> =
            prints.mentions.into_iter().map(|m| m.what).filter(|w| matches!(w, What::Macro(_))).collect();
        assert_eq!(macros, ["info", "println", "eprintln"].map(|name| What::Macro(name.to_owned())));
    }

    #[test]
    fn what_follows_a_test_module_is_looked_at() {
        let text = "#[cfg(test)]\nmod tests;\nuse crate::store::Disk;\nfn f() { sled::open(); }";
        assert_eq!(ours(text), [(3, "store::Disk".to_owned())]);
        assert_eq!(foreign(text), [(4, "sled".to_owned())]);
        assert_eq!(read(text).tests, [["cli", "ingest", "tests"]]);
    }

    #[test]
    fn only_what_is_for_tests_alone_is_passed_over() {
        for text in [
            "#[cfg(test)] use sled::Db;",
            "#[cfg(test)] mod tests { use sled::Db; fn f() { sled::open() } }",
            "#[cfg(all(test, unix))] fn f() { sled::open() }",
            "impl X { #[cfg(test)] fn f(&self) { sled::open() } }",
            "struct X { #[cfg(test)] db: sled::Db }",
            "fn f() { #[cfg(test)] let x = sled::open(); }",
        ] {
            assert_eq!(foreign(text), [], "{text}");
        }
        for attribute in
            ["cfg(not(test))", "cfg(any(test, unix))", "cfg(unix)", "cfg(feature = \"test\")", "test"]
        {
            let text = format!("#[{attribute}] fn f() {{ sled::open() }}");
            assert_eq!(foreign(&text), [(1, "sled".to_owned())], "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_not_taken_for_one() {
        let text = "//! sled::Db\nfn f(sled: u8) -> u8 { /* ort::x */ let s = \"sled::x\"; sled + x.sled }";
        assert_eq!(foreign(text), []);
        assert_eq!(foreign("fn f() { mine::sled::open(); assert!(mine::sled::x); }"), []);
    }
}
