// Who reaches a port from outside, through the JavaScript SDK: tokens, masks, signed links.
import assert from 'node:assert/strict'
import http from 'node:http'
import { test } from 'node:test'
import { Sandbox } from 'e2b'
import { SANDBOX_URL, api, shared, until, withSandbox } from './support.mjs'

const PORT = 8080
// Answers with what it was sent.
const SERVER = `
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', ${PORT}), Echo).serve_forever()
`
const held = shared({
  network: { allowPublicTraffic: false, maskRequestHost: 'localhost:${PORT}' },
})

/** A request to a sandbox's port by its host name. */
function ask(sandbox, port, { path = '/', method = 'GET', headers = {}, body } = {}) {
  const url = new URL(SANDBOX_URL)
  const host = `${port}-${sandbox.sandboxId}.warren.example`
  const options = {
    host: url.hostname,
    port: url.port,
    path,
    method,
    headers: { host, ...headers },
    agent: false,
  }
  return new Promise((resolve, reject) => {
    const request = http.request(options, (response) => {
      let text = ''
      response.on('data', (chunk) => (text += chunk))
      response.on('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, text })
      )
    })
    request.on('error', reject)
    request.end(body)
  })
}

async function serve(sandbox) {
  await sandbox.files.write('/tmp/echo.py', SERVER)
  await sandbox.commands.run('python3 /tmp/echo.py', { background: true, timeoutMs: 0 })
  const headers = { 'e2b-traffic-access-token': sandbox.trafficAccessToken ?? '' }
  await until(
    async () => (await ask(sandbox, PORT, { headers })).status === 200,
    'the server inside answers'
  )
}

test('a private sandbox wants its token, and masks the host', async () => {
  const { sandbox } = held
  await serve(sandbox)
  const token = sandbox.trafficAccessToken
  assert.ok(token)
  const missing = await ask(sandbox, PORT)
  assert.equal(missing.status, 403)
  assert.deepEqual(JSON.parse(missing.text), {
    sandboxId: sandbox.sandboxId,
    message:
      "Sandbox is secured with traffic access token. Token header 'e2b-traffic-access-token' is missing",
    code: 403,
  })
  const headers = { 'E2B-Traffic-Access-Token': 'x' }
  assert.match((await ask(sandbox, PORT, { headers })).text, /is invalid/)
  const seen = JSON.parse(
    (await ask(sandbox, PORT, { headers: { 'E2B-Traffic-Access-Token': token } })).text
  )
  assert.equal(seen.host, `localhost:${PORT}`)
  assert.equal(seen['x-forwarded-host'], `${PORT}-${sandbox.sandboxId}.warren.example`)
  assert.equal(seen['e2b-traffic-access-token'], token)
})

test('the agent needs no traffic token', async () => {
  const { sandbox } = held
  assert.equal((await ask(sandbox, 49983, { path: '/health' })).status, 204)
  assert.equal((await sandbox.commands.run('echo ok')).stdout, 'ok\n')
})

test('a preflight is answered, and the refusal is readable by pages', async () => {
  const { sandbox } = held
  const origin = 'https://example.com'
  const preflight = await ask(sandbox, PORT, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'e2b-traffic-access-token',
    },
  })
  assert.equal(preflight.status, 204)
  assert.equal(preflight.headers['access-control-allow-headers'], 'e2b-traffic-access-token')
  const refused = await ask(sandbox, PORT, { headers: { origin } })
  assert.equal(refused.status, 403)
  assert.equal(refused.headers['access-control-allow-origin'], '*')
})

test('the token is the same for whoever connects, over a pause as well', async () => {
  const { sandbox } = held
  const token = sandbox.trafficAccessToken
  await sandbox.pause()
  const again = await Sandbox.connect(sandbox.sandboxId)
  assert.equal(again.trafficAccessToken, token)
  const headers = { 'e2b-traffic-access-token': token }
  assert.equal((await ask(sandbox, PORT, { headers })).status, 200)
  assert.equal((await ask(sandbox, PORT)).status, 403)
})

test('traffic is public and the agent secured unless it is said otherwise', () =>
  withSandbox(async (sandbox) => {
    assert.equal(sandbox.trafficAccessToken ?? null, null)
    await serve(sandbox)
    assert.equal((await ask(sandbox, PORT)).status, 200)
    const refused = await ask(sandbox, 49983, { path: '/files?path=/etc/hostname' })
    assert.equal(refused.status, 401)
  }))

test('a mask that is no host is refused', async () => {
  for (const mask of ['-https://abcd', 'a b', 'ü.example']) {
    const body = { templateID: 'base', network: { maskRequestHost: mask } }
    const answer = await api('/v2/sandboxes', { method: 'POST', body })
    assert.equal(answer.status, 400)
    assert.match((await answer.json()).message, /mask request host/)
  }
})

test('without a secured agent there is no private traffic', async () => {
  const body = { templateID: 'base', network: { allowPublicTraffic: false } }
  const answer = await api('/sandboxes', { method: 'POST', body })
  assert.equal(answer.status, 400)
  assert.match((await answer.json()).message, /^You cannot create a sandbox without public access/)
})

test('signed links open one file for one purpose', async () => {
  const { sandbox } = held
  await sandbox.files.write('hello.txt', 'signed')
  const path = (url) => new URL(url).pathname + new URL(url).search
  const down = path(await sandbox.downloadUrl('hello.txt'))
  assert.equal((await ask(sandbox, 49983, { path: down })).text, 'signed')
  const timed = path(await sandbox.downloadUrl('hello.txt', { useSignatureExpiration: 60_000 }))
  assert.equal((await ask(sandbox, 49983, { path: timed })).text, 'signed')
  const other = await ask(sandbox, 49983, { path: down.replace('hello.txt', 'other.txt') })
  assert.deepEqual(JSON.parse(other.text), { code: 401, message: 'invalid signature' })
  const up = path(await sandbox.uploadUrl('up.txt'))
  const form = '--b\r\ncontent-disposition: form-data; name="file"; filename="up.txt"\r\n\r\nsent\r\n--b--\r\n'
  const sent = await ask(sandbox, 49983, {
    path: up,
    method: 'POST',
    headers: { 'content-type': 'multipart/form-data; boundary=b' },
    body: form,
  })
  assert.equal(sent.status, 200, sent.text)
  assert.equal(await sandbox.files.read('up.txt'), 'sent')
})
