//! What stands in the parentheses: `engine = "epoll"`, `engines = ["uring", "epoll"]`, `cores = 2`.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitStr, Token, bracketed, token};

use crate::engines::Engine;

/// The arguments of either attribute.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The engines that are named; none for what is the default.
    pub(crate) engines: Vec<Engine>,
    /// Where a list of engines stands, if one does.
    pub(crate) list: Option<Ident>,
    pub(crate) cores: Option<Expr>,
}

const KNOWN: &str =
    "the arguments are engine = \"...\" and cores = N, and for a test engines = [...]";

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Arguments> {
        let mut arguments = Arguments::default();
        while !input.is_empty() {
            if !input.peek(Ident::peek_any) {
                return Err(input.error(format!("an argument has a name; {KNOWN}")));
            }
            arguments.parse_one(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

impl Arguments {
    fn parse_one(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let name = input.call(Ident::parse_any)?;
        let known = ["engine", "engines", "cores"].iter().any(|known| name == known);
        if !known {
            return Err(Error::new(name.span(), format!("unknown argument '{name}'; {KNOWN}")));
        }
        if !input.peek(Token![=]) {
            return Err(Error::new(name.span(), format!("'{name}' needs a value; {KNOWN}")));
        }
        input.parse::<Token![=]>()?;
        if name == "cores" {
            if self.cores.is_some() {
                return Err(Error::new(name.span(), "'cores' is given twice"));
            }
            self.cores = Some(cores(input)?);
            return Ok(());
        }
        if !self.engines.is_empty() {
            return Err(Error::new(name.span(), "the engines are given twice"));
        }
        if name == "engine" {
            self.engines.push(engine(input)?);
        } else {
            self.engines = engines(input)?;
            self.list = Some(name);
        }
        Ok(())
    }
}

/// One engine.
fn engine(input: ParseStream<'_>) -> syn::Result<Engine> {
    if input.peek(token::Bracket) {
        return Err(input.error("this is one engine's name; several are engines = [...]"));
    }
    if !input.peek(LitStr) {
        return Err(input.error("an engine is named by a string, as in engine = \"epoll\""));
    }
    Engine::parse(&input.parse()?)
}

/// A list of engines.
fn engines(input: ParseStream<'_>) -> syn::Result<Vec<Engine>> {
    if !input.peek(token::Bracket) {
        return Err(input.error("this is a list, as in engines = [\"uring\", \"epoll\"]"));
    }
    let list;
    let bracket = bracketed!(list in input);
    let listed = Punctuated::<Engine, Token![,]>::parse_terminated_with(&list, engine)?;
    let engines: Vec<_> = listed.into_iter().collect();
    if engines.is_empty() {
        let what = "name at least one engine, or leave the list out for all of them";
        return Err(Error::new(bracket.span.join(), what));
    }
    for (at, engine) in engines.iter().enumerate() {
        if engines[..at].iter().any(|before| before.name() == engine.name()) {
            let what = format!("engine '{}' is named twice", engine.name());
            return Err(Error::new(engine.span, what));
        }
    }
    Ok(engines)
}

/// A number of cores, which may be computed.
fn cores(input: ParseStream<'_>) -> syn::Result<Expr> {
    let cores: Expr = input.parse()?;
    if let Expr::Lit(ExprLit { lit, .. }) = &cores {
        let is_number = match lit {
            Lit::Int(number) => number.base10_parse::<u32>().is_ok_and(|number| number > 0),
            _ => false,
        };
        if !is_number {
            let what = "cores is a number of at least 1, as in cores = 2";
            return Err(Error::new_spanned(&cores, what));
        }
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: &str) -> String {
        match syn::parse_str::<Arguments>(arguments) {
            Ok(_) => panic!("'{arguments}' was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn all_arguments_are_read() {
        let arguments: Arguments = syn::parse_str("engine = \"epoll\", cores = 2,").unwrap();
        assert_eq!(arguments.engines[0].name(), "epoll");
        assert!(arguments.cores.is_some() && arguments.list.is_none());
        let arguments: Arguments = syn::parse_str("engines = [\"uring\", \"select\",]").unwrap();
        let names: Vec<_> = arguments.engines.iter().map(Engine::name).collect();
        assert_eq!(names, ["uring", "select"]);
        let arguments: Arguments = syn::parse_str("").unwrap();
        assert!(arguments.engines.is_empty() && arguments.cores.is_none());
        syn::parse_str::<Arguments>("cores = CORES").unwrap();
    }

    #[test]
    fn what_is_wrong_with_an_argument_is_said() {
        let cases = [
            ("threads = 2", "unknown argument 'threads'; the arguments are engine"),
            ("\"epoll\"", "an argument has a name; the arguments are engine"),
            ("engine", "'engine' needs a value; the arguments are"),
            ("engine = epoll", "an engine is named by a string, as in engine = \"epoll\""),
            ("engine = [\"epoll\"]", "this is one engine's name; several are engines = [...]"),
            ("engine = \"io_uring\"", "unknown engine 'io_uring'; the engines are: auto, uring,"),
            ("engine = \"poll\", engine = \"aio\"", "the engines are given twice"),
            ("engine = \"poll\", engines = [\"aio\"]", "the engines are given twice"),
            ("engines = \"poll\"", "this is a list, as in engines = [\"uring\", \"epoll\"]"),
            ("engines = []", "name at least one engine, or leave the list out for all of them"),
            ("engines = [\"poll\", \"poll\"]", "engine 'poll' is named twice"),
            ("engines = [poll]", "an engine is named by a string"),
            ("cores = 0", "cores is a number of at least 1, as in cores = 2"),
            ("cores = \"all\"", "cores is a number of at least 1"),
            ("cores = 1, cores = 2", "'cores' is given twice"),
            ("cores = 1 engine = \"poll\"", "expected `,`"),
        ];
        for (arguments, expected) in cases {
            let error = error(arguments);
            assert!(error.starts_with(expected), "'{arguments}': {error}");
        }
    }
}
