//! The attributes `#[omniring::main]` and `#[omniring::test]`, which are documented where they are
//! re-exported: in the crate `omniring`.
//!
//! # Layout
//! `arguments` reads what stands in the parentheses, `function` the function below, `expand` writes
//! what becomes of it. All three work on tokens that exist outside of the compiler too.

mod arguments;
mod engines;
mod expand;
mod function;

use proc_macro::TokenStream;

/// Makes an `async fn` a plain one that runs its body on a runtime.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::main(arguments.into(), item.into()).into()
}

/// Makes an `async fn` a test on each engine.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(arguments.into(), item.into()).into()
}
