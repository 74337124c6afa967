//! The function below an attribute. Its signature is read, its body is passed on as it is.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Error, Generics, Ident, ReturnType, Token, Visibility, WhereClause};

/// An `async fn` without arguments.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) name: Ident,
    pub(crate) output: ReturnType,
    pub(crate) body: Group,
}

const SHAPE: &str = "this attribute is for a function without arguments: async fn name() { ... }";

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Function> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let asyncness: Option<Token![async]> = input.parse()?;
        let Ok(fn_token) = input.parse::<Token![fn]>() else {
            return Err(input.error(SHAPE));
        };
        let name: Ident = input.parse()?;
        if asyncness.is_none() {
            let what = format!("the function has to be async: async fn {name}()");
            return Err(Error::new_spanned(fn_token, what));
        }
        let generics: Generics = input.parse()?;
        if !generics.params.is_empty() {
            let what =
                format!("{name} may not be generic: nobody says for which types it is to run");
            return Err(Error::new_spanned(generics.params, what));
        }
        let arguments = group(input, Delimiter::Parenthesis)?;
        if !arguments.stream().is_empty() {
            let what = format!("{name} may have no arguments: nobody passes any");
            return Err(Error::new_spanned(arguments.stream(), what));
        }
        let output = input.parse()?;
        if let Some(clause) = input.parse::<Option<WhereClause>>()? {
            let what = format!("{name} may not have a where clause: it is not generic");
            return Err(Error::new_spanned(clause, what));
        }
        let body = group(input, Delimiter::Brace)?;
        Ok(Function { attributes, visibility, name, output, body })
    }
}

/// The group that comes next.
fn group(input: ParseStream<'_>, delimiter: Delimiter) -> syn::Result<Group> {
    match input.fork().parse() {
        Ok(TokenTree::Group(group)) if group.delimiter() == delimiter => {
            input.parse::<TokenTree>()?;
            Ok(group)
        }
        _ => Err(input.error(SHAPE)),
    }
}

impl Function {
    /// The function as it was, without its attributes and with this visibility.
    pub(crate) fn bare(&self, visibility: Option<&Visibility>) -> TokenStream {
        let Function { name, output, body, .. } = self;
        let mut tokens = visibility.map(ToTokens::to_token_stream).unwrap_or_default();
        tokens.extend(quote::quote! { async fn #name() #output #body });
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(function: &str) -> String {
        match syn::parse_str::<Function>(function) {
            Ok(_) => panic!("'{function}' was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_function_is_read_and_passed_on() {
        let text = "#[ignore] pub(crate) async fn f() -> io::Result<()> { anything [goes] here }";
        let function: Function = syn::parse_str(text).unwrap();
        assert_eq!((function.attributes.len(), function.name.to_string()), (1, "f".to_owned()));
        let bare = function.bare(Some(&function.visibility)).to_string();
        let expected: TokenStream =
            text.strip_prefix("#[ignore]").expect("it begins so").parse().unwrap();
        assert_eq!(bare, expected.to_string());
    }

    #[test]
    fn what_is_wrong_with_a_function_is_said() {
        let cases = [
            ("fn f() {}", "the function has to be async: async fn f()"),
            ("async fn f(x: u32) {}", "f may have no arguments: nobody passes any"),
            ("async fn f(&self) {}", "f may have no arguments"),
            ("async fn f<T>() {}", "f may not be generic"),
            ("async fn f() where u8: Copy {}", "f may not have a where clause"),
            ("struct S;", "this attribute is for a function without arguments: async fn name()"),
            ("async fn f();", "this attribute is for a function without arguments"),
            ("async unsafe fn f() {}", "this attribute is for a function without arguments"),
        ];
        for (function, expected) in cases {
            let error = error(function);
            assert!(error.starts_with(expected), "'{function}': {error}");
        }
    }
}
