//! An axum [`Router`], or any tower service, behind a [`Server`].
//!
//! What axum does by itself works on any runtime; layers that sleep or spawn with tokio's runtime do not
//! work here, nor does `axum::serve`, in whose place this is.
//!
//! ```
//! use axum::{Router, routing::get};
//! use omniring::net::TcpListener;
//!
//! # let runtime = omniring::Runtime::new()?;
//! # runtime.block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let router = Router::new().route("/", get(|| async { "hello" }));
//! let server = omniring_adapters::axum::serve(&listener, router);
//! # omniring::time::timeout(std::time::Duration::from_millis(1), server).await.unwrap_err();
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;

use ::axum::Router;
use hyper_util::service::TowerToHyperService;

use crate::http::{Listen, Server};

/// A tower service as hyper's, for [`Server::serve`] and its kin.
pub fn service<S>(service: S) -> TowerToHyperService<S> {
    TowerToHyperService::new(service)
}

/// Serves a router until the listener fails: [`Server::serve`] with the defaults.
pub async fn serve(listener: &impl Listen, router: Router) -> io::Result<()> {
    Server::new().serve(listener, service(router)).await
}
