// The SDK's `mcp` option: servers inside a sandbox, behind one address and a token.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import http from 'node:http'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Sandbox, Template } from 'e2b'
import { SANDBOX_URL, api } from './support.mjs'

const PORT = 50005
const here = dirname(fileURLToPath(import.meta.url))
const guest = join(here, '../../../guest/mcp-gateway/tests/it')
const name = `js-mcp-${randomUUID().slice(0, 12)}`

const acme = (...tools) => ({
  'github/acme/tools': {
    runCmd: ['python3 server.py acme', ...tools].join(' '),
    envs: { WORD: 'w' },
  },
})

/** What the gateway answers to a message that comes by the sandbox's own name. */
function post(sandbox, token, message) {
  const url = new URL(SANDBOX_URL)
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        host: url.hostname,
        port: url.port,
        path: '/mcp',
        method: 'POST',
        agent: false,
        headers: {
          host: sandbox.getHost(PORT),
          authorization: `Bearer ${token}`,
          accept: 'application/json, text/event-stream',
          'content-type': 'application/json',
        },
      },
      async (response) => {
        const text = (await response.toArray()).join('')
        resolve({ status: response.statusCode, body: text && response.statusCode === 200 ? JSON.parse(text) : text })
      }
    )
    request.on('error', reject)
    request.end(JSON.stringify({ jsonrpc: '2.0', id: 1, ...message }))
  })
}

before(async () => {
  const template = Template({ fileContextPath: guest })
    .fromBaseImage()
    .copy('server.py', '/opt/mcp-gateway/acme/tools/server.py', { user: 'root' })
    .makeSymlink('/.warren/bin/mcp-gateway', '/usr/local/bin/mcp-gateway', { user: 'root' })
  await Template.build(template, name)
})

after(() => api(`/templates/${name}`, { method: 'DELETE' }))

test('servers answer behind a token', async () => {
  const sandbox = await Sandbox.create(name, { timeoutMs: 120_000, mcp: acme('add', 'sub') })
  try {
    assert.equal(sandbox.getMcpUrl(), `https://${sandbox.getHost(PORT)}/mcp`)
    const token = await sandbox.getMcpToken()
    const listed = await post(sandbox, token, { method: 'tools/list', params: {} })
    assert.deepEqual(
      listed.body.result.tools.map((tool) => tool.name),
      ['add', 'sub']
    )
    const called = await post(sandbox, token, {
      method: 'tools/call',
      params: { name: 'add', arguments: {} },
    })
    assert.deepEqual(called.body.result.content, [{ type: 'text', text: 'acme ran add with w' }])
    assert.equal((await post(sandbox, 'wrong', { method: 'ping' })).status, 401)
    const again = await Sandbox.connect(sandbox.sandboxId)
    assert.equal(await again.getMcpToken(), token)
  } finally {
    await sandbox.kill()
  }
})

test('a server that does not start leaves no sandbox', async () => {
  const broken = { 'github/acme/tools': { runCmd: 'echo broken >&2; exit 3' } }
  await assert.rejects(Sandbox.create(name, { timeoutMs: 120_000, mcp: broken }), /broken/)
  const listed = await api(`/v2/sandboxes?template=${name}`)
  assert.deepEqual(await listed.json(), [])
})
