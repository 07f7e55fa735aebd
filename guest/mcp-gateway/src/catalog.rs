//! Servers by the names that the SDKs have for them, as far as npm or PyPI has them.

/// Where a package is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registry {
    Npm,
    Pypi,
}

/// An argument of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    /// As it is.
    Word(&'static str),
    /// A setting, behind a prefix such as `--key=`.
    Setting(&'static str, &'static str),
    /// Each element of a setting that is a list, behind words of their own if any.
    Each(&'static [&'static str], &'static str),
}

/// One server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Name in the SDKs' settings.
    pub(crate) name: &'static str,
    pub(crate) registry: Registry,
    pub(crate) package: &'static str,
    pub(crate) args: &'static [Arg],
    /// Variables, and the settings that they have their values from.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Settings without which it does not start.
    pub(crate) required: &'static [&'static str],
}

const fn npm(name: &'static str, package: &'static str) -> Entry {
    Entry {
        name,
        registry: Registry::Npm,
        package,
        args: &[],
        env: &[],
        required: &[],
    }
}

const fn pypi(name: &'static str, package: &'static str) -> Entry {
    Entry {
        registry: Registry::Pypi,
        ..npm(name, package)
    }
}

/// The entry of a server that has its key from a variable.
const fn keyed(
    entry: Entry,
    env: &'static [(&'static str, &'static str)],
    required: &'static [&'static str],
) -> Entry {
    Entry {
        env,
        required,
        ..entry
    }
}

const fn with_args(entry: Entry, args: &'static [Arg]) -> Entry {
    Entry { args, ..entry }
}

use Arg::{Each, Setting, Word};

/// All of them, by name.
#[rustfmt::skip]
pub(crate) const ENTRIES: &[Entry] = &[
    keyed(npm("airtable", "airtable-mcp-server"), &[("AIRTABLE_API_KEY", "airtableApiKey")], &["airtableApiKey"]),
    keyed(npm("apify", "@apify/actors-mcp-server"), &[("APIFY_TOKEN", "apifyToken")], &["apifyToken"]),
    with_args(pypi("arxiv", "arxiv-mcp-server"), &[Setting("--storage-path=", "storagePath")]),
    pypi("awsDocumentation", "awslabs-aws-documentation-mcp-server"),
    keyed(npm("brave", "@brave/brave-search-mcp-server"), &[("BRAVE_API_KEY", "apiKey")], &["apiKey"]),
    keyed(npm("browserbase", "@browserbasehq/mcp-server-browserbase"), &[("BROWSERBASE_API_KEY", "apiKey"), ("BROWSERBASE_PROJECT_ID", "projectId"), ("GEMINI_API_KEY", "geminiApiKey")], &["apiKey", "projectId"]),
    keyed(pypi("chroma", "chroma-mcp"), &[("CHROMA_API_KEY", "apiKey")], &[]),
    keyed(npm("circleci", "@circleci/mcp-server-circleci"), &[("CIRCLECI_TOKEN", "token"), ("CIRCLECI_BASE_URL", "url")], &["token"]),
    keyed(npm("context7", "@upstash/context7-mcp"), &[("CONTEXT7_API_KEY", "apiKey")], &[]),
    npm("desktopCommander", "@wonderwhy-er/desktop-commander"),
    pypi("duckduckgo", "duckduckgo-mcp-server"),
    keyed(npm("elasticsearch", "@elastic/mcp-server-elasticsearch"), &[("ES_URL", "url"), ("ES_API_KEY", "esApiKey")], &["url"]),
    keyed(pypi("elevenlabs", "elevenlabs-mcp"), &[("ELEVENLABS_API_KEY", "apiKey")], &["apiKey"]),
    keyed(npm("everart", "@modelcontextprotocol/server-everart"), &[("EVERART_API_KEY", "apiKey")], &["apiKey"]),
    keyed(npm("exa", "exa-mcp-server"), &[("EXA_API_KEY", "apiKey")], &["apiKey"]),
    pypi("fetch", "mcp-server-fetch"),
    with_args(npm("filesystem", "@modelcontextprotocol/server-filesystem"), &[Each(&[], "paths")]),
    keyed(npm("firecrawl", "firecrawl-mcp"), &[("FIRECRAWL_API_KEY", "apiKey"), ("FIRECRAWL_API_URL", "url")], &["apiKey"]),
    with_args(pypi("git", "mcp-server-git"), &[Each(&["--repository"], "paths")]),
    keyed(npm("github", "@modelcontextprotocol/server-github"), &[("GITHUB_PERSONAL_ACCESS_TOKEN", "personalAccessToken")], &["personalAccessToken"]),
    keyed(npm("gitlab", "@modelcontextprotocol/server-gitlab"), &[("GITLAB_PERSONAL_ACCESS_TOKEN", "personalAccessToken"), ("GITLAB_API_URL", "url")], &["personalAccessToken"]),
    keyed(npm("googleMaps", "@modelcontextprotocol/server-google-maps"), &[("GOOGLE_MAPS_API_KEY", "googleMapsApiKey")], &["googleMapsApiKey"]),
    keyed(npm("heroku", "@heroku/mcp-server"), &[("HEROKU_API_KEY", "apiKey")], &["apiKey"]),
    keyed(npm("hubspot", "@hubspot/mcp-server"), &[("PRIVATE_APP_ACCESS_TOKEN", "apiKey")], &["apiKey"]),
    keyed(npm("kubernetes", "mcp-server-kubernetes"), &[("KUBECONFIG", "configPath")], &[]),
    keyed(npm("mapbox", "@mapbox/mcp-server"), &[("MAPBOX_ACCESS_TOKEN", "accessToken")], &["accessToken"]),
    pypi("markitdown", "markitdown-mcp"),
    npm("memory", "@modelcontextprotocol/server-memory"),
    keyed(npm("mongodb", "mongodb-mcp-server"), &[("MDB_MCP_CONNECTION_STRING", "mdbMcpConnectionString")], &["mdbMcpConnectionString"]),
    with_args(keyed(npm("neon", "@neondatabase/mcp-server-neon"), &[], &["apiKey"]), &[Word("start"), Setting("", "apiKey")]),
    npm("nextDevtools", "next-devtools-mcp"),
    keyed(npm("notion", "@notionhq/notion-mcp-server"), &[("NOTION_TOKEN", "internalIntegrationToken")], &["internalIntegrationToken"]),
    keyed(pypi("obsidian", "mcp-obsidian"), &[("OBSIDIAN_API_KEY", "apiKey")], &["apiKey"]),
    npm("openbnbAirbnb", "@openbnb/mcp-server-airbnb"),
    keyed(npm("perplexityAsk", "@perplexity-ai/mcp-server"), &[("PERPLEXITY_API_KEY", "perplexityApiKey")], &["perplexityApiKey"]),
    npm("playwright", "@executeautomation/playwright-mcp-server"),
    npm("puppeteer", "@modelcontextprotocol/server-puppeteer"),
    keyed(pypi("redis", "redis-mcp-server"), &[("REDIS_HOST", "host"), ("REDIS_PORT", "port"), ("REDIS_USERNAME", "username"), ("REDIS_PWD", "pwd"), ("REDIS_SSL", "ssl"), ("REDIS_CLUSTER_MODE", "clusterMode")], &["host"]),
    with_args(keyed(pypi("sentry", "mcp-server-sentry"), &[], &["authToken"]), &[Setting("--auth-token=", "authToken")]),
    npm("sequentialthinking", "@modelcontextprotocol/server-sequential-thinking"),
    keyed(npm("slack", "@modelcontextprotocol/server-slack"), &[("SLACK_BOT_TOKEN", "botToken"), ("SLACK_TEAM_ID", "teamId"), ("SLACK_CHANNEL_IDS", "channelIds")], &["botToken", "teamId"]),
    pypi("sqlite", "mcp-server-sqlite"),
    with_args(keyed(npm("stripe", "@stripe/mcp"), &[], &["secretKey"]), &[Word("--tools=all"), Setting("--api-key=", "secretKey")]),
    keyed(npm("tavily", "tavily-mcp"), &[("TAVILY_API_KEY", "apiKey")], &["apiKey"]),
    pypi("time", "mcp-server-time"),
    pypi("wikipedia", "wikipedia-mcp"),
];

/// The server of this name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_each_is_there_once() {
        assert!(ENTRIES.is_sorted_by(|a, b| a.name < b.name));
    }
}
