//! Between bodies and use cases.

use std::collections::BTreeMap;

use warren_control as control;
use warren_service::Secret;
use warren_types::{CLIENT_ID, ENVD_VERSION, SandboxState};
use warren_wire as wire;

use crate::error::ApiError;

/// A create request; `secure` and the default life differ by version.
pub(crate) fn new_sandbox(
    body: wire::NewSandbox,
    secure: bool,
    default_timeout_s: i64,
) -> Result<control::NewSandbox, ApiError> {
    let mcp = body.mcp.as_ref().map(serde_json::to_string).transpose();
    let tokens = body.iam.and_then(|iam| iam.tokens).unwrap_or_default();
    Ok(control::NewSandbox {
        template: body.template_id,
        timeout_s: body.timeout.map_or(default_timeout_s, i64::from),
        metadata: body.metadata.unwrap_or_default(),
        env: body.env_vars.unwrap_or_default(),
        auto_pause: body.auto_pause.unwrap_or(false),
        auto_pause_memory: body.auto_pause_memory,
        auto_resume: body.auto_resume.is_some_and(|resume| resume.enabled),
        secure,
        allow_internet: body.allow_internet_access,
        network: body.network.map(settings),
        volume_mounts: body
            .volume_mounts
            .unwrap_or_default()
            .into_iter()
            .map(mount)
            .collect(),
        iam_tokens: tokens.into_iter().map(iam_token).collect(),
        mcp: mcp.map_err(|error| ApiError::internal(&error))?,
    })
}

fn iam_token((name, token): (String, wire::IamToken)) -> (String, control::IamToken) {
    let token = control::IamToken {
        audience: token.audience,
        token_type: token.token_type,
    };
    (name, token)
}

fn mount(mount: wire::VolumeMount) -> control::MountRecord {
    control::MountRecord {
        name: mount.name,
        path: mount.path,
        read_only: mount.read_only,
    }
}

fn shown_mount(mount: control::MountRecord) -> wire::VolumeMount {
    wire::VolumeMount {
        name: mount.name,
        path: mount.path,
        read_only: mount.read_only,
    }
}

type Rules = BTreeMap<String, Vec<BTreeMap<String, String>>>;

fn rules(rules: BTreeMap<String, Vec<wire::NetworkRule>>) -> Rules {
    let headers = |rule: wire::NetworkRule| rule.transform.unwrap_or_default().headers;
    rules
        .into_iter()
        .map(|(domain, list)| (domain, list.into_iter().map(headers).collect()))
        .collect()
}

fn proxy(proxy: wire::EgressProxy) -> control::EgressProxy {
    control::EgressProxy {
        address: proxy.address,
        username: proxy.username,
        password: proxy.password.map(Secret::new),
        sealed_password: None,
        tls: proxy.tls.map(|tls| control::EgressProxyTls {
            enabled: tls.enabled,
            server_name: tls.server_name,
            ca_cert: tls.ca_cert,
        }),
    }
}

fn settings(network: wire::NetworkSettings) -> control::NetworkSettings {
    control::NetworkSettings {
        allow_public_traffic: network.allow_public_traffic,
        allow_out: network.allow_out,
        deny_out: network.deny_out,
        egress_proxy: network.egress_proxy.map(proxy),
        mask_request_host: network.mask_request_host,
        rules: network.rules.map(rules),
        dns_servers: network.dns_servers,
        https_ports: network.https_ports,
        tokens: BTreeMap::new(),
    }
}

/// New egress settings.
pub(crate) fn network_update(update: wire::NetworkUpdate) -> control::NetworkUpdate {
    control::NetworkUpdate {
        allow_out: update.allow_out,
        deny_out: update.deny_out,
        egress_proxy: update.egress_proxy.map(proxy),
        rules: update.rules.map(rules),
        dns_servers: update.dns_servers,
        allow_internet: update.allow_internet_access,
    }
}

fn shown_rules(rules: Rules) -> BTreeMap<String, Vec<wire::NetworkRule>> {
    let rule = |headers| wire::NetworkRule {
        transform: Some(wire::NetworkTransform { headers }),
    };
    rules
        .into_iter()
        .map(|(domain, list)| (domain, list.into_iter().map(rule).collect()))
        .collect()
}

/// A proxy without its password and certificates, which are not told again.
fn shown_proxy(proxy: control::EgressProxy) -> wire::EgressProxy {
    let tls = proxy.tls.filter(|tls| tls.enabled);
    wire::EgressProxy {
        address: proxy.address,
        username: proxy.username,
        password: None,
        tls: tls.map(|tls| wire::EgressProxyTls {
            enabled: true,
            server_name: tls.server_name,
            ca_cert: None,
        }),
    }
}

/// Settings as given; none if there are none that clients know.
fn shown_settings(mut network: control::NetworkSettings) -> Option<wire::NetworkSettings> {
    network.tokens.clear();
    if network == control::NetworkSettings::default() {
        return None;
    }
    Some(wire::NetworkSettings {
        allow_public_traffic: network.allow_public_traffic,
        allow_out: network.allow_out,
        deny_out: network.deny_out,
        egress_proxy: network.egress_proxy.map(shown_proxy),
        mask_request_host: network.mask_request_host,
        rules: network.rules.map(shown_rules),
        dns_servers: network.dns_servers,
        https_ports: network.https_ports,
    })
}

/// The clear token: its team is who asks.
fn shown_token(token: Option<Secret>) -> Option<String> {
    token.map(|token| token.expose().to_owned())
}

/// Answer of create and connect.
pub(crate) fn sandbox(sandbox: control::Sandbox) -> wire::Sandbox {
    wire::Sandbox {
        template_id: sandbox.record.template_id.into(),
        sandbox_id: sandbox.record.id.into(),
        alias: sandbox.record.alias,
        client_id: CLIENT_ID.to_owned(),
        envd_version: ENVD_VERSION.to_owned(),
        envd_access_token: shown_token(sandbox.access_token),
        traffic_access_token: shown_token(sandbox.traffic_token),
        domain: sandbox.domain,
    }
}

/// An element of the lists.
pub(crate) fn listed(sandbox: control::Sandbox) -> wire::ListedSandbox {
    listed_record(sandbox.record)
}

fn listed_record(record: control::SandboxRecord) -> wire::ListedSandbox {
    wire::ListedSandbox {
        template_id: record.template_id.into(),
        alias: record.alias,
        sandbox_id: record.id.into(),
        client_id: CLIENT_ID.to_owned(),
        started_at: record.started_at,
        end_at: record.end_at,
        cpu_count: record.cpu_count,
        memory_mb: record.memory_mib,
        disk_size_mb: record.disk_mib,
        metadata: record.metadata,
        state: match record.state {
            SandboxState::Paused => wire::State::Paused,
            _ => wire::State::Running,
        },
        envd_version: ENVD_VERSION.to_owned(),
        envd_unresponsive_at_pause: record.pause.is_some_and(|pause| pause.agent_silent),
        volume_mounts: record.volume_mounts.into_iter().map(shown_mount).collect(),
    }
}

/// Answer of get.
pub(crate) fn detail(sandbox: control::Sandbox) -> wire::SandboxDetail {
    let record = sandbox.record;
    wire::SandboxDetail {
        envd_access_token: shown_token(sandbox.access_token),
        allow_internet_access: record.allow_internet,
        domain: sandbox.domain,
        network: sandbox.network.and_then(shown_settings),
        pause_mode: record.pause.as_ref().map(|pause| match pause.memory {
            true => wire::PauseMode::Full,
            false => wire::PauseMode::Filesystem,
        }),
        lifecycle: wire::Lifecycle {
            auto_resume: record.auto_resume,
            on_timeout: if record.auto_pause {
                wire::OnTimeout::Pause
            } else {
                wire::OnTimeout::Kill
            },
        },
        listed: listed_record(record),
    }
}
