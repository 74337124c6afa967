//! The engines' names, known here so that a wrong one is an error of the compiler's.

use proc_macro2::Span;
use quote::format_ident;
use syn::{Error, Ident, LitStr};

/// Name on a command line, and variant of `omniring::Engine`.
const ENGINES: &[(&str, &str)] = &[
    (AUTO, "Auto"),
    ("uring", "Uring"),
    ("uring-sqpoll", "UringSqpoll"),
    ("uring-iopoll", "UringIopoll"),
    ("aio", "Aio"),
    ("epoll", "Epoll"),
    ("epoll-level", "EpollLevel"),
    ("poll", "Poll"),
    ("select", "Select"),
    ("threads", "Threads"),
    ("blocking", "Blocking"),
];

/// The name that stands for the best one.
const AUTO: &str = "auto";

/// An engine as a program names it.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    name: &'static str,
    variant: &'static str,
    /// Where it is named, for messages about it.
    pub(crate) span: Span,
}

impl Engine {
    /// The engine of this name.
    pub(crate) fn parse(name: &LitStr) -> syn::Result<Engine> {
        let wanted = name.value();
        match ENGINES.iter().find(|(name, _)| *name == wanted) {
            Some(&(known, variant)) => Ok(Engine { name: known, variant, span: name.span() }),
            None => {
                let known: Vec<_> = ENGINES.iter().map(|(name, _)| *name).collect();
                let known = known.join(", ");
                let what = format!("unknown engine '{wanted}'; the engines are: {known}");
                Err(Error::new(name.span(), what))
            }
        }
    }

    /// Every engine, without the name that stands for the best one.
    pub(crate) fn all() -> Vec<Engine> {
        let named = ENGINES.iter().filter(|(name, _)| *name != AUTO);
        named.map(|&(name, variant)| Engine { name, variant, span: Span::call_site() }).collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The variant of `omniring::Engine`.
    pub(crate) fn variant(&self) -> Ident {
        Ident::new(self.variant, Span::call_site())
    }

    /// What the engine's test is called.
    pub(crate) fn function(&self) -> Ident {
        format_ident!("{}", self.name.replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use omniring_driver::EngineName;

    use super::*;

    #[test]
    fn the_engines_are_those_of_the_driver() {
        let here: Vec<_> =
            Engine::all().iter().map(|engine| (engine.name, engine.variant.to_owned())).collect();
        let there: Vec<_> =
            EngineName::ALL.iter().map(|engine| (engine.name(), format!("{engine:?}"))).collect();
        assert_eq!(here, there);
    }

    #[test]
    fn an_unknown_engine_is_named_beside_the_known_ones() {
        let name = LitStr::new("iocp", Span::call_site());
        let error = Engine::parse(&name).unwrap_err().to_string();
        assert!(
            error.starts_with("unknown engine 'iocp'; the engines are: auto, uring, "),
            "{error}"
        );
    }
}
