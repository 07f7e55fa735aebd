//! Tokens for the content of volumes: signed claims that say for which volume, for whom and
//! until when.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use warren_service::Secret;
use warren_store::{Actor, VolumeRecord};
use warren_types::{TeamId, VolumeId};

/// How long a token is good: clients take one and never ask for another.
const TOKEN_LIFE_S: i64 = 30 * 24 * 3600;
/// Sets the key of these tokens apart from that of sandboxes.
const KEY_USE: &str = "volume-tokens";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT","kid":"volume"}"#;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    teamid: String,
    volid: VolumeId,
    voltype: String,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<ActingAs>,
}

/// Somebody, as the audit trail names them: kind and id.
#[derive(Debug, Serialize, Deserialize)]
struct ActingAs {
    sub: String,
}

impl ActingAs {
    fn of(actor: Actor) -> Self {
        let (kind, id) = (actor.kind(), actor.id());
        Self {
            sub: id.map_or_else(|| kind.to_owned(), |id| format!("{kind}:{id}")),
        }
    }

    fn actor(&self) -> Option<Actor> {
        match self.sub.split_once(':') {
            Some((kind, id)) => Actor::parse(kind, Some(id)),
            None => Actor::parse(&self.sub, None),
        }
    }
}

/// Whoever shows a good token of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeHolder {
    /// The volume.
    pub volume: VolumeId,
    /// The volume's team.
    pub team: TeamId,
    /// Whom the token was made for.
    pub actor: Actor,
}

fn mac(key: &Secret, text: &str) -> Hmac<Sha256> {
    let mut derived = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    derived.update(KEY_USE.as_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(&derived.finalize().into_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

pub(super) fn sign(
    key: &Secret,
    volume: &VolumeRecord,
    actor: Actor,
    audience: &str,
    now: i64,
) -> Secret {
    let claims = Claims {
        iss: "warren".to_owned(),
        aud: format!("https://api.{audience}"),
        sub: volume.team_id.to_string(),
        teamid: volume.team_id.to_string(),
        volid: volume.id,
        voltype: "directory".to_owned(),
        jti: hex::encode(rand::rng().random::<[u8; 16]>()),
        iat: now,
        nbf: now,
        exp: now.saturating_add(TOKEN_LIFE_S),
        act: Some(ActingAs::of(actor)),
    };
    let claims = serde_json::to_vec(&claims).expect("claims are plain text and numbers");
    let mut token = URL_SAFE_NO_PAD.encode(HEADER);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = mac(key, &token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Secret::new(token)
}

/// The volume that a token is for and whom it was made for, if it is one of ours and good at
/// `now`.
pub(super) fn verify(key: &Secret, token: &str, now: i64) -> Option<(VolumeId, Actor)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(key, signed).verify_slice(&signature).ok()?;
    // Only we can have signed it, so it says what `sign` wrote.
    let (_, claims) = signed.split_once('.')?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let actor = claims.act.as_ref().and_then(ActingAs::actor);
    (claims.exp > now).then_some((claims.volid, actor.unwrap_or(Actor::Volume)))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use warren_types::ApiKeyId;

    use super::*;

    #[test]
    fn a_token_is_for_one_volume_one_key_and_a_time() {
        let volume = VolumeRecord {
            id: VolumeId::random(),
            team_id: TeamId::random(),
            name: "v".to_owned(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        let key = Secret::new("key".to_owned());
        for actor in [Actor::Key(ApiKeyId::random()), Actor::Admin] {
            let token = sign(&key, &volume, actor, "example.org", 1000);
            assert_eq!(verify(&key, token.expose(), 1000), Some((volume.id, actor)));
        }
        let token = sign(&key, &volume, Actor::Admin, "example.org", 1000);
        let token = token.expose();
        assert_eq!(token.split('.').count(), 3);
        assert_eq!(verify(&key, token, 1000 + TOKEN_LIFE_S), None);
        assert_eq!(verify(&Secret::new("other".to_owned()), token, 1000), None);
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode("{}"));
        for bad in ["", "a", "a.b.c", "..", &forged, &token[1..]] {
            assert_eq!(verify(&key, bad, 1000), None, "{bad}");
        }
    }
}
