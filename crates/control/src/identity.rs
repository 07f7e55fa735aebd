//! Workload tokens: what says to others which sandbox a request is from. Made for one
//! request each, verified with the public key that the server publishes.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rand::Rng;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use warren_service::Secret;
use warren_types::{SandboxId, TeamId};

use crate::Control;

const MAX_TOKENS: usize = 5;
const MAX_NAME: usize = 255;
const MAX_AUDIENCE: usize = 2048;
const TOKEN_TYPE: &str = "JWT-SVID";
/// A token is made for a request that leaves at once.
const LIFE_S: i64 = 300;
/// Clocks of verifiers may be behind.
const LEEWAY_S: i64 = 30;

/// A workload token as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IamToken {
    /// Who it is for.
    pub audience: String,
    /// `JWT-SVID`.
    pub token_type: String,
}

/// Why workload tokens are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IamError {
    /// Too many.
    #[error("iam.tokens: too many tokens: {0} (max {MAX_TOKENS})")]
    TooMany(usize),
    /// One without a name.
    #[error("iam.tokens: token name must not be empty")]
    NoName,
    /// A name beyond reason.
    #[error("iam.tokens: token name must not be longer than {MAX_NAME} bytes")]
    LongName,
    /// For nobody.
    #[error("iam.tokens.{0}.audience: audience is required")]
    NoAudience(String),
    /// An audience beyond reason.
    #[error("iam.tokens.{0}.audience: audience must not be longer than {MAX_AUDIENCE} bytes")]
    LongAudience(String),
    /// Of another type.
    #[error("iam.tokens.{0}.tokenType: only \"{TOKEN_TYPE}\" is supported")]
    Type(String),
}

/// Audiences by the tokens' names.
pub(crate) fn audiences(
    tokens: &BTreeMap<String, IamToken>,
) -> Result<BTreeMap<String, String>, IamError> {
    if tokens.len() > MAX_TOKENS {
        return Err(IamError::TooMany(tokens.len()));
    }
    let checked = tokens.iter().map(|(name, token)| {
        if name.is_empty() {
            return Err(IamError::NoName);
        }
        if name.len() > MAX_NAME {
            return Err(IamError::LongName);
        }
        match token.audience.len() {
            0 => return Err(IamError::NoAudience(name.clone())),
            1..=MAX_AUDIENCE => {}
            _ => return Err(IamError::LongAudience(name.clone())),
        }
        if token.token_type != TOKEN_TYPE {
            return Err(IamError::Type(name.clone()));
        }
        Ok((name.clone(), token.audience.clone()))
    });
    checked.collect()
}

/// No token can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The key is not one.
    #[error("the identity key is damaged")]
    Key,
    /// The key failed.
    #[error("sign a workload token")]
    Sign,
    /// This server makes none.
    #[error("workload tokens are switched off")]
    Disabled,
}

/// Makes workload tokens (ES256).
pub struct Identity {
    issuer: String,
    trust_domain: String,
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("issuer", &self.issuer)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes a key, in the form in which it is kept: PKCS #8 in hexadecimal digits.
    ///
    /// # Errors
    /// [`IdentityError::Key`] when the system gives no randomness.
    pub fn generate() -> Result<Secret, IdentityError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let key = key.map_err(|_| IdentityError::Key)?;
        Ok(Secret::new(hex::encode(key.as_ref())))
    }

    /// Takes up a kept key. `issuer` is the URL that tokens name and verifiers ask for the
    /// public key, without a slash at its end.
    ///
    /// # Errors
    /// [`IdentityError::Key`]
    pub fn new(issuer: String, key: &Secret) -> Result<Self, IdentityError> {
        let bytes = hex::decode(key.expose().trim()).map_err(|_| IdentityError::Key)?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes, &random);
        let key = key.map_err(|_| IdentityError::Key)?;
        let host = issuer
            .split_once("://")
            .map_or(issuer.as_str(), |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default();
        let digest = hex::encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self {
            trust_domain: host.to_ascii_lowercase(),
            key_id: digest.chars().take(16).collect(),
            issuer,
            key,
            random,
        })
    }

    fn token(
        &self,
        team: TeamId,
        sandbox: &SandboxId,
        audience: &str,
    ) -> Result<Secret, IdentityError> {
        let now = Timestamp::now().as_second();
        let header = json!({"alg": "ES256", "kid": self.key_id, "typ": "JWT"});
        let claims = json!({
            "iss": self.issuer,
            "sub": format!("spiffe://{}/team/{team}/sandbox/{sandbox}", self.trust_domain),
            "aud": [audience],
            "iat": now,
            "nbf": now - LEEWAY_S,
            "exp": now + LIFE_S,
            "jti": hex::encode(rand::rng().random::<[u8; 16]>()),
            "team_id": team.to_string(),
            "sandbox_id": sandbox.as_str(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes());
        let signature = signature.map_err(|_| IdentityError::Sign)?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(Secret::new(format!("{signed}.{signature}")))
    }

    /// The public key as a set (RFC 7517).
    #[must_use]
    pub fn key_set(&self) -> Value {
        let public = self.key.public_key().as_ref();
        // An uncompressed point: a mark, then both coordinates.
        let point = public.get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }

    /// What verifiers look up of the issuer (OpenID Connect Discovery).
    #[must_use]
    pub fn configuration(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/.well-known/jwks.json", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti",
                "team_id", "sandbox_id"],
        })
    }
}

impl Control {
    /// What workload tokens are made with, if they are.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.config.identity.as_deref()
    }

    /// A fresh workload token of a team's sandbox, for the broker alone.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn identity_token(
        &self,
        team: TeamId,
        sandbox: &SandboxId,
        audience: &str,
    ) -> Result<Secret, IdentityError> {
        let identity = self.identity().ok_or(IdentityError::Disabled)?;
        identity.token(team, sandbox, audience)
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_token_says_who_for_whom_and_until_when_and_verifies_with_the_published_key() {
        let key = Identity::generate().unwrap();
        let issuer = "https://Api.example.com:8443".to_owned();
        let identity = Identity::new(issuer.clone(), &key).unwrap();
        let (team, sandbox) = (TeamId::random(), SandboxId::random());
        let token = identity.token(team, &sandbox, "sts.example").unwrap();
        let (signed, signature) = token.expose().rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let read = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let keys = identity.key_set();
        assert_eq!(read(header)["kid"], keys["keys"][0]["kid"]);
        let coordinate = |name: &str| {
            let text = keys["keys"][0][name].as_str().unwrap();
            URL_SAFE_NO_PAD.decode(text).unwrap()
        };
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let claims = read(claims);
        assert_eq!(claims["iss"], json!(issuer));
        assert_eq!(claims["aud"], json!(["sts.example"]));
        let subject = format!("spiffe://api.example.com/team/{team}/sandbox/{sandbox}");
        assert_eq!(claims["sub"], json!(subject));
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(life, LIFE_S);
        assert!(Identity::new(String::new(), &Secret::new("00".to_owned())).is_err());
    }

    #[test]
    fn tokens_are_checked_with_the_documented_texts() {
        let token = |audience: &str, kind: &str| IamToken {
            audience: audience.to_owned(),
            token_type: kind.to_owned(),
        };
        let text = |name: &str, token: IamToken| {
            let tokens = [(name.to_owned(), token)].into();
            audiences(&tokens).err().map(|error| error.to_string())
        };
        assert_eq!(text("a", token("x", "JWT-SVID")), None);
        let all = "iam.tokens: token name must not be empty";
        assert_eq!(text("", token("x", "JWT-SVID")).unwrap(), all);
        let all = "iam.tokens.a.audience: audience is required";
        assert_eq!(text("a", token("", "JWT-SVID")).unwrap(), all);
        let all = "iam.tokens.a.tokenType: only \"JWT-SVID\" is supported";
        assert_eq!(text("a", token("x", "JWT")).unwrap(), all);
        let many = (0..6).map(|n| (n.to_string(), token("x", "JWT-SVID")));
        let error = audiences(&many.collect()).unwrap_err();
        assert_eq!(error.to_string(), "iam.tokens: too many tokens: 6 (max 5)");
    }
}
