//! What looking into TLS costs, which header rules need: beside a connection that passes
//! unread. The same backend answers both.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use crate::report::Report;
use crate::roles::Times;
use crate::server::Server;
use crate::warren::Sandbox;

pub(super) const NAME: &str = "secure.test";
const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "chain.pem";
const KEY: &str = "key.pem";
/// Where a sandbox's agent puts the authority of its own.
const OWN: &str = "/usr/local/share/ca-certificates/e2b-ca.crt";
const SECRET: &str = "bench";

/// Makes an authority and a certificate of the backend in a directory. Returns the files of
/// the certificate and its key.
pub(super) fn certify(dir: &Path) -> anyhow::Result<[String; 2]> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec![NAME.to_owned(), format!("*.{NAME}")];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    std::fs::write(dir.join(AUTHORITY), authority.pem())?;
    let files = [CERTIFICATE, KEY].map(|name| dir.join(name).display().to_string());
    let [chain, private] = &files;
    std::fs::write(chain, certificate.pem())?;
    std::fs::write(private, key.serialize_pem())?;
    Ok(files)
}

/// The authority that the server has to trust.
pub(crate) fn authority(dir: &Path) -> String {
    dir.join(AUTHORITY).display().to_string()
}

/// Measures first and following requests, read and unread, in turns.
pub(super) async fn run(
    server: &Server,
    dir: &Path,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    const ROUNDS: usize = 5;
    let authority = std::fs::read_to_string(dir.join(AUTHORITY))?;
    let secret = json!({ "name": SECRET, "value": "0123456789abcdef" });
    server.api.post("/secrets", &secret).await?;
    let unread = with_rules(server, &json!({})).await?;
    let save = format!("cat >/tmp/ca.pem <<'END'\n{authority}END\n");
    server.api.run(&unread, &save).await?;
    let header = json!({ "Authorization": format!("Bearer ${{e2b.secrets.{SECRET}}}") });
    let rule = json!([{ "transform": { "headers": header } }]);
    let rules = json!({ "rules": { NAME: rule, format!("*.{NAME}"): rule } });
    let read = with_rules(server, &rules).await?;
    let (mut without, mut with, mut names) = <(Times, Times, Times)>::default();
    for _ in 0..ROUNDS {
        let n = n / ROUNDS;
        extend(&mut without, ask(server, &unread, n, "/tmp/ca.pem").await?);
        extend(&mut with, ask(server, &read, n, OWN).await?);
        let fresh = format!("{OWN} --fresh");
        extend(&mut names, ask(server, &read, n / 4, &fresh).await?);
    }
    let mut tell = |what: &str, times: Vec<u64>| {
        let times = times.into_iter().map(Duration::from_nanos).collect();
        report.times(format!("egress: TLS, {what}"), times);
    };
    tell("first request, unread", without.first);
    tell("first request, header set", with.first);
    tell("first request to a new name, header set", names.first);
    tell("following request, unread", without.second);
    tell("following request, header set", with.second);
    server.api.kill(&unread).await?;
    server.api.kill(&read).await
}

async fn with_rules(server: &Server, network: &serde_json::Value) -> anyhow::Result<Sandbox> {
    let sandbox = server.api.create().await?;
    super::proxy::upload(server, &sandbox).await?;
    let path = format!("/sandboxes/{}/network", sandbox.id);
    server.api.put(&path, network).await?;
    Ok(sandbox)
}

async fn ask(server: &Server, from: &Sandbox, n: usize, roots: &str) -> anyhow::Result<Times> {
    let command = format!("/tmp/bench-backend ask-secure {NAME} {n} {roots}");
    let output = server.api.run(from, &command).await?;
    serde_json::from_str(&output).with_context(|| format!("no times: {output:?}"))
}

fn extend(all: &mut Times, more: Times) {
    all.first.extend(more.first);
    all.second.extend(more.second);
}
