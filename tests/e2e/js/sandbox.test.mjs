// Life of a sandbox through the JavaScript SDK.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import {
  AuthenticationError,
  Sandbox,
  SandboxError,
  SandboxNotFoundError,
  TimeoutError,
} from 'e2b'
import { api, shared, until, viaHost, withSandbox } from './support.mjs'

const MISSING = 'i0000000000000000dead'
const held = shared()

test('a sandbox made without options lives about five minutes', async () => {
  const sandbox = await Sandbox.create()
  try {
    const info = await sandbox.getInfo()
    assert.equal(info.state, 'running')
    assert.equal(info.name, 'base')
    const life = info.endAt.getTime() - info.startedAt.getTime()
    assert.ok(life > 280_000 && life < 320_000, `${life} ms`)
  } finally {
    assert.equal(await sandbox.kill(), true)
  }
})

test('milliseconds are rounded up to whole seconds', () =>
  withSandbox(
    async (sandbox) => {
      const info = await sandbox.getInfo()
      const life = info.endAt.getTime() - info.startedAt.getTime()
      assert.ok(life > 1500 && life < 4000, `${life} ms`)
    },
    { timeoutMs: 1500 }
  ))

test('a wrong key is an authentication error', async () => {
  const apiKey = 'e2b_' + '00'.repeat(20)
  await assert.rejects(Sandbox.create({ apiKey }), AuthenticationError)
  await assert.rejects(Sandbox.list({ apiKey }).nextItems(), AuthenticationError)
})

test('an unknown template is a 404', async () => {
  await assert.rejects(Sandbox.create('nope'), (error) => {
    assert.ok(error instanceof SandboxError)
    assert.match(error.message, /404/)
    return true
  })
})

test('metadata and variables', () =>
  withSandbox(
    async (sandbox) => {
      assert.deepEqual((await sandbox.getInfo()).metadata, { 'a b': 'c&d=e', ü: '✓' })
      assert.equal((await sandbox.commands.run('echo $A')).stdout, '1\n')
      const raw = await (await api(`/sandboxes/${sandbox.sandboxId}`)).text()
      assert.ok(!raw.includes('hidden-value'))
    },
    { metadata: { 'a b': 'c&d=e', ü: '✓' }, envs: { A: '1', B: 'hidden-value' } }
  ))

test('listing finds by metadata and pages to the end', async () => {
  const mark = randomUUID()
  const made = []
  try {
    for (let n = 0; n < 3; n++) {
      made.push(await Sandbox.create({ timeoutMs: 60_000, metadata: { mark, 'a b': 'c&d' } }))
    }
    const pages = Sandbox.list({ query: { metadata: { mark, 'a b': 'c&d' } }, limit: 2 })
    const first = await pages.nextItems()
    assert.equal(first.length, 2)
    assert.ok(pages.hasNext)
    const rest = await pages.nextItems()
    assert.ok(!pages.hasNext)
    const found = [...first, ...rest].map((item) => item.sandboxId)
    assert.deepEqual(found, made.map((sandbox) => sandbox.sandboxId).reverse())
    const none = Sandbox.list({ query: { metadata: { mark, 'a b': 'other' } } })
    assert.deepEqual(await none.nextItems(), [])
  } finally {
    await Promise.all(made.map((sandbox) => sandbox.kill()))
  }
})

test('connecting reaches the same sandbox', async () => {
  await held.sandbox.files.write('/tmp/mine', 'x')
  const again = await Sandbox.connect(held.sandbox.sandboxId)
  assert.equal(await again.files.read('/tmp/mine'), 'x')
  await assert.rejects(Sandbox.connect(MISSING), SandboxNotFoundError)
})

test('timeouts are set and kept', () =>
  withSandbox(async (sandbox) => {
    await sandbox.setTimeout(600_000)
    const { endAt } = await sandbox.getInfo()
    const left = endAt.getTime() - Date.now()
    assert.ok(left > 570_000 && left <= 601_000, `${left} ms`)
    await sandbox.setTimeout(1000)
    await until(async () => !(await sandbox.isRunning()), 'the sandbox ends', 10_000)
    await assert.rejects(sandbox.getInfo(), SandboxNotFoundError)
  }))

test('kill answers whether there was something to kill', async () => {
  const sandbox = await Sandbox.create({ timeoutMs: 60_000 })
  assert.equal(await sandbox.kill(), true)
  assert.equal(await Sandbox.kill(sandbox.sandboxId), false)
  assert.equal(await sandbox.isRunning(), false)
})

test('a kill ends a command stream with a timeout error', async () => {
  const sandbox = await Sandbox.create({ timeoutMs: 60_000 })
  const handle = await sandbox.commands.run('sleep 60', { background: true })
  const ended = assert.rejects(handle.wait(), (error) => {
    assert.ok(error instanceof TimeoutError, String(error))
    assert.match(error.message, /sandbox was killed or reached its end of life/)
    return true
  })
  await sandbox.kill()
  await ended
})

test('metrics come within half a minute', async () => {
  const points = await until(
    async () => {
      const found = await held.sandbox.getMetrics()
      return found.length && found
    },
    'a first point',
    35_000
  )
  const info = await held.sandbox.getInfo()
  assert.equal(points[0].cpuCount, info.cpuCount)
  assert.equal(points[0].memTotal, info.memoryMB * 1024 * 1024)
  assert.ok(points[0].diskUsed > 0 && points[0].diskUsed <= points[0].diskTotal)
})

test('a server inside is reached by its host name', async () => {
  const server = "require('http').createServer((q, r) => r.end('from node')).listen(8123)"
  await held.sandbox.commands.run(`node -e "${server}"`, { background: true, timeoutMs: 0 })
  const answer = await until(async () => {
    const got = await viaHost(held.sandbox.getHost(8123))
    return got.status === 200 && got
  }, 'the server')
  assert.equal(answer.text, 'from node')
})

test('no internet when refused', () =>
  withSandbox(
    async (sandbox) => {
      const command = 'curl -sS --max-time 3 http://1.1.1.1 || echo failed'
      const result = await sandbox.commands.run(command)
      assert.match(result.stdout, /failed/)
      assert.equal((await sandbox.getInfo()).allowInternetAccess, false)
    },
    { allowInternetAccess: false }
  ))

test('private traffic wants the token', () =>
  withSandbox(
    async (sandbox) => {
      assert.ok(sandbox.trafficAccessToken)
      assert.equal((await viaHost(sandbox.getHost(8080))).status, 403)
      assert.equal((await sandbox.commands.run('echo ok')).stdout, 'ok\n')
    },
    { network: { allowPublicTraffic: false } }
  ))
