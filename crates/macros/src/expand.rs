//! What becomes of a function.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Error, Expr, Lit, Meta};

use crate::arguments::Arguments;
use crate::engines::Engine;
use crate::function::Function;

/// A plain function that makes a runtime and has it run the `async` one.
pub(crate) fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    try_main(arguments, item.clone()).unwrap_or_else(|error| {
        // With a function of that name there is this error only, and not that it is missing.
        let stand_in = syn::parse2::<Function>(item).ok().map(|function| {
            let Function { visibility, name, .. } = function;
            quote! { #visibility fn #name() {} }
        });
        let stand_in = stand_in.unwrap_or_else(|| quote! { fn main() {} });
        let error = error.to_compile_error();
        quote! { #error #stand_in }
    })
}

fn try_main(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let function: Function = syn::parse2(item)?;
    let arguments: Arguments = syn::parse2(arguments)?;
    if let Some(list) = arguments.list {
        return Err(Error::new(list.span(), "a program runs on one engine: engine = \"...\""));
    }
    let engine = arguments.engines.first().map(|engine| {
        let variant = engine.variant();
        quote! { .engine(::omniring::Engine::#variant) }
    });
    let cores = cores(arguments.cores.as_ref());
    let Function { attributes, visibility, name, output, .. } = &function;
    let inner = function.bare(None);
    Ok(quote! {
        #(#attributes)*
        #visibility fn #name() #output {
            #inner
            ::omniring::__macros::start(::omniring::Runtime::builder() #engine #cores)
                .block_on(#name())
        }
    })
}

/// The call on the builder, if it is asked for.
fn cores(cores: Option<&Expr>) -> Option<TokenStream> {
    cores.map(|cores| quote! { .cores(#cores) })
}

/// The function, and a module of its name with a test for each engine.
pub(crate) fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    try_test(arguments, item).unwrap_or_else(Error::into_compile_error)
}

fn try_test(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let function: Function = syn::parse2(item)?;
    let mut arguments: Arguments = syn::parse2(arguments)?;
    if arguments.engines.is_empty() {
        arguments.engines = Engine::all();
    }
    if let Some(test) =
        function.attributes.iter().find(|attribute| attribute.path().is_ident("test"))
    {
        let what = "this attribute makes the tests: take #[test] away";
        return Err(Error::new_spanned(test, what));
    }
    // What the test harness reads belongs to the tests, a condition to them and to the function.
    let is_harness = |attribute: &&Attribute| {
        attribute.path().is_ident("ignore") || attribute.path().is_ident("should_panic")
    };
    let for_tests: Vec<_> = function.attributes.iter().filter(is_harness).collect();
    let for_function = function.attributes.iter().filter(|attribute| !is_harness(attribute));
    let conditions =
        function.attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let panic = match for_tests.iter().find(|attribute| attribute.path().is_ident("should_panic")) {
        Some(attribute) => {
            let message = panic_message(attribute);
            quote! { ::core::option::Option::Some(#message) }
        }
        None => quote! { ::core::option::Option::None },
    };
    // What a number of cores is computed from is named where the function is.
    let is_literal = |cores: &Expr| matches!(cores, Expr::Lit(_));
    let computed = arguments.cores.as_ref().filter(|cores| !is_literal(cores));
    let import = computed.map(|_| quote! { use super::*; });
    let cores = cores(arguments.cores.as_ref());
    let name = &function.name;
    let tests = arguments.engines.iter().map(|engine| {
        let (variant, function) = (engine.variant(), engine.function());
        quote! {
            #[::core::prelude::v1::test]
            #(#for_tests)*
            fn #function() {
                let builder = ::omniring::__macros::builder(::omniring::Engine::#variant);
                ::omniring::__macros::test(builder #cores, ::omniring::Engine::#variant, #panic, super::#name);
            }
        }
    });
    let bare = function.bare(Some(&function.visibility));
    Ok(quote! {
        #[cfg(test)]
        #(#for_function)*
        #bare

        #[cfg(test)]
        #(#conditions)*
        mod #name {
            #import
            #(#tests)*
        }
    })
}

/// The message that a panic is to have: `""` for any.
fn panic_message(attribute: &Attribute) -> String {
    let is_expected = |value: &syn::MetaNameValue| value.path.is_ident("expected");
    let value = match &attribute.meta {
        Meta::NameValue(value) => Some(value.value.clone()),
        Meta::List(list) => list
            .parse_args::<syn::MetaNameValue>()
            .ok()
            .filter(is_expected)
            .map(|value| value.value),
        Meta::Path(_) => None,
    };
    match value {
        Some(Expr::Lit(syn::ExprLit { lit: Lit::Str(text), .. })) => text.value(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> TokenStream {
        text.parse().unwrap()
    }

    /// Both as the tokens print, so that spaces do not matter.
    #[track_caller]
    fn assert_expands(expanded: TokenStream, expected: &str) {
        assert_eq!(expanded.to_string(), tokens(expected).to_string());
    }

    #[test]
    fn main_runs_the_function_on_a_runtime() {
        assert_expands(
            main(tokens(""), tokens("/// It.\n pub async fn main() -> R { body }")),
            "/// It.
            pub fn main() -> R {
                async fn main() -> R { body }
                ::omniring::__macros::start(::omniring::Runtime::builder()).block_on(main())
            }",
        );
    }

    /// Only then: the builder need not know about cores otherwise.
    #[test]
    fn engine_and_cores_are_set_when_given() {
        assert_expands(
            main(tokens("cores = 2, engine = \"epoll-level\""), tokens("async fn main() {}")),
            "fn main() {
                async fn main() {}
                ::omniring::__macros::start(::omniring::Runtime::builder()
                    .engine(::omniring::Engine::EpollLevel).cores(2)).block_on(main())
            }",
        );
    }

    #[test]
    fn a_test_is_one_for_each_engine_that_is_named() {
        let item = "#[should_panic(expected = \"no\")] #[cfg(unix)] async fn fails() { body }";
        let one = |function: &str, variant: &str| {
            format!(
                "#[::core::prelude::v1::test] #[should_panic(expected = \"no\")]
                fn {function}() {{
                    let builder = ::omniring::__macros::builder(::omniring::Engine::{variant});
                    ::omniring::__macros::test(builder.cores(3), ::omniring::Engine::{variant},
                        ::core::option::Option::Some(\"no\"), super::fails);
                }}"
            )
        };
        let arguments = tokens("engines = [\"uring-sqpoll\", \"select\"], cores = 3");
        assert_expands(
            test(arguments, tokens(item)),
            &format!(
                "#[cfg(test)] #[cfg(unix)] async fn fails() {{ body }}
                #[cfg(test)] #[cfg(unix)] mod fails {{
                    {} {}
                }}",
                one("uring_sqpoll", "UringSqpoll"),
                one("select", "Select"),
            ),
        );
    }

    #[test]
    fn a_test_without_arguments_is_one_for_each_engine() {
        let expanded = test(tokens(""), tokens("async fn f() {}")).to_string();
        assert_eq!(expanded.matches("prelude :: v1 :: test").count(), Engine::all().len());
        assert!(!expanded.contains("Auto") && !expanded.contains("cores"));
    }

    #[test]
    fn a_panic_has_the_message_that_is_expected() {
        let message = |attribute: &str| {
            let function = format!("#[{attribute}] async fn f() {{}}");
            panic_message(&syn::parse_str::<Function>(&function).unwrap().attributes[0])
        };
        assert_eq!(message("should_panic"), "");
        assert_eq!(message("should_panic = \"a\""), "a");
        assert_eq!(message("should_panic(expected = \"b\")"), "b");
    }

    #[test]
    fn an_error_is_the_only_one() {
        let expanded = main(tokens("engines = [\"aio\"]"), tokens("async fn run() {}")).to_string();
        let what = "compile_error ! { \"a program runs on one engine: engine = \\\"...\\\"\" }";
        assert!(expanded.contains(what), "{expanded}");
        assert!(expanded.ends_with("fn run () { }"), "{expanded}");
        let expanded = main(tokens(""), tokens("fn main() {}")).to_string();
        assert!(expanded.contains("the function has to be async: async fn main()"), "{expanded}");
        assert!(expanded.ends_with("fn main () { }"), "{expanded}");
        let expanded = test(tokens(""), tokens("#[test] async fn f() {}")).to_string();
        assert!(expanded.contains("take #[test] away"), "{expanded}");
    }
}
