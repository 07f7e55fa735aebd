//! All servers as one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::child::{Child, Gone, PROTOCOL};
use crate::rpc::{Answer, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, Message, SERVER_GONE};

/// Revisions of the protocol that clients may choose.
const PROTOCOLS: [&str; 4] = ["2024-11-05", "2025-03-26", PROTOCOL, "2025-11-25"];
/// Pages of a server's list.
const MAX_PAGES: usize = 100;

/// What servers have lists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Tool,
    Prompt,
    Resource,
    ResourceTemplate,
}

impl Kind {
    /// The capability, the method that lists, the field of the answer, and that of an
    /// element's name.
    fn words(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Tool => ("tools", "tools/list", "tools", "name"),
            Self::Prompt => ("prompts", "prompts/list", "prompts", "name"),
            Self::Resource => ("resources", "resources/list", "resources", "uri"),
            Self::ResourceTemplate => (
                "resources",
                "resources/templates/list",
                "resourceTemplates",
                "uriTemplate",
            ),
        }
    }
}

/// Where something is: the server, and its name there.
type Home = (usize, String);

/// The servers of a sandbox.
#[derive(Debug)]
pub struct Gateway {
    servers: Vec<Child>,
    /// By the names that clients see.
    homes: Mutex<HashMap<(Kind, String), Home>>,
}

impl Gateway {
    pub(crate) fn new(servers: Vec<Child>) -> Self {
        Self {
            servers,
            homes: Mutex::default(),
        }
    }

    fn homes(&self) -> MutexGuard<'_, HashMap<(Kind, String), Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deals with a client's message. `None` for one that wants no answer.
    pub(crate) async fn take(&self, message: Message) -> Option<Vec<u8>> {
        let Some(method) = message.method else {
            // Answers are for requests, and the gateway sends none.
            let is_answer = message.result.is_some() || message.error.is_some();
            let refused = || Answer::error(INVALID_REQUEST, "not a request");
            return (!is_answer).then(|| refused().into_text(&Value::Null));
        };
        let id = message.id.filter(|id| !id.is_null())?;
        let answer = self.answer(&method, message.params).await;
        Some(answer.into_text(&id))
    }

    async fn answer(&self, method: &str, params: Option<Value>) -> Answer {
        let params = params.unwrap_or_else(|| json!({}));
        match method {
            "initialize" => Answer::result(&self.about(&params)),
            "ping" | "logging/setLevel" => Answer::result(&json!({})),
            "tools/list" => self.list(Kind::Tool).await,
            "prompts/list" => self.list(Kind::Prompt).await,
            "resources/list" => self.list(Kind::Resource).await,
            "resources/templates/list" => self.list(Kind::ResourceTemplate).await,
            "tools/call" => self.hand_on(Kind::Tool, method, params).await,
            "prompts/get" => self.hand_on(Kind::Prompt, method, params).await,
            "resources/read" => self.read(params).await,
            _ => Answer::error(METHOD_NOT_FOUND, format!("there is no method {method:?}")),
        }
    }

    fn about(&self, params: &Value) -> Value {
        let asked = params["protocolVersion"].as_str().unwrap_or_default();
        let version = if PROTOCOLS.contains(&asked) {
            asked
        } else {
            PROTOCOL
        };
        let mut capabilities = Map::new();
        for what in ["tools", "prompts", "resources"] {
            if self.servers.iter().any(|server| server.can(what)) {
                capabilities.insert(what.to_owned(), json!({}));
            }
        }
        let instructions = self.servers.iter().filter_map(|server| {
            let text = server.about["instructions"].as_str()?;
            Some(format!("{}: {text}", server.name))
        });
        let mut about = json!({
            "protocolVersion": version,
            "capabilities": capabilities,
            "serverInfo": { "name": "mcp-gateway", "version": env!("CARGO_PKG_VERSION") },
        });
        let instructions: Vec<_> = instructions.collect();
        if !instructions.is_empty() {
            about["instructions"] = instructions.join("\n\n").into();
        }
        about
    }

    /// The lists of all servers as one, which clients need not page through. A name that an
    /// earlier server has bears its server's in front.
    async fn list(&self, kind: Kind) -> Answer {
        let (_, _, field, key) = kind.words();
        let lists = self.servers.iter().map(|server| elements(server, kind));
        let lists = join_all(lists).await;
        let mut all = Vec::new();
        let mut homes = HashMap::new();
        for (index, elements) in lists.into_iter().enumerate() {
            for mut element in elements {
                let Some(own) = element[key].as_str().map(str::to_owned) else {
                    continue;
                };
                let mut shown = own.clone();
                if homes.contains_key(&(kind, shown.clone())) {
                    if key != "name" {
                        continue;
                    }
                    shown = format!("{}_{own}", plain(&self.servers[index].name));
                    element[key] = shown.clone().into();
                }
                homes.insert((kind, shown), (index, own));
                all.push(element);
            }
        }
        let mut known = self.homes();
        known.retain(|(other, _), _| *other != kind);
        known.extend(homes);
        drop(known);
        Answer::result(&json!({ field: all }))
    }

    async fn home(&self, kind: Kind, name: &str) -> Option<Home> {
        let find = || self.homes().get(&(kind, name.to_owned())).cloned();
        if let Some(home) = find() {
            return Some(home);
        }
        // Not listed yet, or new.
        self.list(kind).await;
        find()
    }

    async fn hand_on(&self, kind: Kind, method: &str, mut params: Value) -> Answer {
        let Some(name) = params["name"].as_str().map(str::to_owned) else {
            return Answer::error(INVALID_PARAMS, "the parameter \"name\" is missing");
        };
        let Some((index, own)) = self.home(kind, &name).await else {
            return Answer::error(INVALID_PARAMS, format!("there is no {name:?}"));
        };
        params["name"] = own.into();
        self.ask(index, method, &params).await
    }

    /// A resource may be of a template, so that it is on no list: then each is asked.
    async fn read(&self, params: Value) -> Answer {
        let Some(uri) = params["uri"].as_str() else {
            return Answer::error(INVALID_PARAMS, "the parameter \"uri\" is missing");
        };
        if let Some((index, _)) = self.home(Kind::Resource, uri).await {
            return self.ask(index, "resources/read", &params).await;
        }
        let mut last = Answer::error(INVALID_PARAMS, format!("there is no {uri:?}"));
        for (index, server) in self.servers.iter().enumerate() {
            if server.can("resources") {
                last = self.ask(index, "resources/read", &params).await;
                if matches!(last, Answer::Result(_)) {
                    break;
                }
            }
        }
        last
    }

    async fn ask(&self, index: usize, method: &str, params: &Value) -> Answer {
        let server = &self.servers[index];
        server
            .call(method, Some(params))
            .await
            .unwrap_or_else(|Gone| {
                Answer::error(
                    SERVER_GONE,
                    format!("the server {:?} has ended", server.name),
                )
            })
    }
}

/// The whole list of a server; what it has told until it fails.
async fn elements(server: &Child, kind: Kind) -> Vec<Value> {
    let (capability, method, field, _) = kind.words();
    let mut all = Vec::new();
    let mut cursor = None;
    if !server.can(capability) {
        return all;
    }
    for _ in 0..MAX_PAGES {
        let params = cursor.as_ref().map(|cursor| json!({ "cursor": cursor }));
        let Ok(Answer::Result(page)) = server.call(method, params.as_ref()).await else {
            break;
        };
        let mut page: Value = serde_json::from_str(page.get()).unwrap_or_default();
        if let Some(Value::Array(elements)) = page.get_mut(field).map(Value::take) {
            all.extend(elements);
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    all
}

/// A server's name in the characters that tools' names may have.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).collect()
}
