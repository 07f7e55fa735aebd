// Pause, resume, snapshots and forks through the JavaScript SDK.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Sandbox, SandboxError, SandboxNotFoundError } from 'e2b'
import { api, until, withSandbox } from './support.mjs'

const MISSING = 'i0000000000000000dead'
const COUNTER = 'i=0; while true; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done'

async function count(sandbox) {
  const text = await until(
    async () => (await sandbox.commands.run('cat /tmp/count || true')).stdout.trim(),
    'the counter counts'
  )
  return Number(text)
}

test('a paused sandbox goes on where it was', () =>
  withSandbox(
    async (sandbox) => {
      await sandbox.commands.run(COUNTER, { background: true })
      const before = await count(sandbox)
      assert.equal(await sandbox.pause(), true)
      assert.equal(await sandbox.pause(), false)
      const info = await Sandbox.getInfo(sandbox.sandboxId)
      assert.equal(info.state, 'paused')
      assert.equal(await sandbox.isRunning(), false)

      const again = await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 90_000 })
      assert.equal(again.sandboxId, sandbox.sandboxId)
      assert.equal((await again.commands.run('echo $A')).stdout, '1\n')
      const first = await count(again)
      assert.ok(first >= before)
      await pause(300)
      assert.ok((await count(again)) > first, 'the process goes on')
      const after = await again.getInfo()
      assert.equal(after.state, 'running')
      assert.deepEqual(after.metadata, { m: 'x' })
      assert.ok(after.startedAt > info.startedAt)
      const life = after.endAt.getTime() - after.startedAt.getTime()
      assert.equal(Math.round(life / 1000), 90)
      // The client of before goes on as well.
      assert.equal((await sandbox.commands.run('echo on')).stdout, 'on\n')
    },
    { envs: { A: '1' }, metadata: { m: 'x' } }
  ))

test('a pause of the files boots afresh', () =>
  withSandbox(
    async (sandbox) => {
      await sandbox.files.write('/home/user/kept', 'yes')
      await sandbox.commands.run(COUNTER, { background: true })
      await count(sandbox)
      assert.equal(await sandbox.pause({ keepMemory: false }), true)
      const detail = await (await api(`/sandboxes/${sandbox.sandboxId}`)).json()
      assert.equal(detail.pauseMode, 'filesystem')
      await sandbox.connect()
      assert.equal(await sandbox.files.read('/home/user/kept'), 'yes')
      assert.equal((await sandbox.commands.run('echo $A')).stdout, '1\n')
      const listed = (await sandbox.commands.run('ps -eo args')).stdout
      assert.ok(!listed.includes('/tmp/count'), listed)
    },
    { envs: { A: '1' } }
  ))

test('connecting never shortens a life', () =>
  withSandbox(async (sandbox) => {
    const before = (await sandbox.getInfo()).endAt
    await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 10_000 })
    assert.deepEqual((await sandbox.getInfo()).endAt, before)
    await Sandbox.connect(sandbox.sandboxId, { timeoutMs: 600_000 })
    assert.ok((await sandbox.getInfo()).endAt > before)
  }))

test('many connects at once share one resume', () =>
  withSandbox(async (sandbox) => {
    await sandbox.pause()
    const connects = Array.from({ length: 10 }, () => Sandbox.connect(sandbox.sandboxId))
    const connected = await Promise.all(connects)
    const starts = new Set()
    for (const each of connected) starts.add((await each.getInfo()).startedAt.getTime())
    assert.equal(starts.size, 1)
  }))

test('at its time-out a sandbox is paused, and a command wakes it', () =>
  withSandbox(
    async (sandbox) => {
      const info = await sandbox.getInfo()
      assert.deepEqual(info.lifecycle, { onTimeout: 'pause', autoResume: true })
      await sandbox.setTimeout(0)
      const state = async () => (await Sandbox.getInfo(sandbox.sandboxId)).state
      await until(async () => (await state()) === 'paused', 'it is paused')
      assert.equal((await sandbox.commands.run('echo awake')).stdout, 'awake\n')
      assert.equal(await state(), 'running')
    },
    { lifecycle: { onTimeout: 'pause', autoResume: true } }
  ))

test('a paused sandbox that traffic may not wake stays paused', () =>
  withSandbox(
    async (sandbox) => {
      await sandbox.pause()
      await assert.rejects(sandbox.commands.run('true'))
      assert.equal((await Sandbox.getInfo(sandbox.sandboxId)).state, 'paused')
      const paginator = Sandbox.list({ query: { state: ['paused'] } })
      const listed = await paginator.nextItems()
      assert.ok(listed.some((each) => each.sandboxId === sandbox.sandboxId))
    },
    { lifecycle: { onTimeout: 'pause' } }
  ))

test('a paused sandbox can be killed, and is gone then', async () => {
  const sandbox = await Sandbox.create({ timeoutMs: 60_000 })
  await sandbox.pause()
  assert.equal(await sandbox.kill(), true)
  assert.equal(await sandbox.kill(), false)
  await assert.rejects(Sandbox.connect(sandbox.sandboxId), SandboxNotFoundError)
  await assert.rejects(Sandbox.pause(sandbox.sandboxId), SandboxNotFoundError)
})

test('what is not there is not found', async () => {
  await assert.rejects(Sandbox.pause(MISSING), SandboxNotFoundError)
  await assert.rejects(Sandbox.connect(MISSING), SandboxNotFoundError)
  await assert.rejects(Sandbox.createSnapshot(MISSING), SandboxNotFoundError)
  await assert.rejects(Sandbox.fork(MISSING), SandboxNotFoundError)
})

test('a named snapshot starts sandboxes, the newest under its name', () =>
  withSandbox(async (source) => {
    const name = `s${randomUUID().replaceAll('-', '')}`
    await source.files.write('/home/user/kept', 'one')
    const first = await source.createSnapshot({ name: `${name}:v1` })
    try {
      assert.match(first.snapshotId, new RegExp(`/${name}:v1$`))
      assert.deepEqual(first.names, [first.snapshotId.replace(/:v1$/, '')])
      await source.files.write('/home/user/kept', 'two')
      const second = await source.createSnapshot({ name: `${name}:v1` })
      assert.equal(second.snapshotId, first.snapshotId)
      const child = await Sandbox.create(first.snapshotId, { timeoutMs: 60_000 })
      try {
        assert.equal(await child.files.read('/home/user/kept'), 'two')
      } finally {
        await child.kill()
      }
      const listed = await Sandbox.listSnapshots({ sandboxId: source.sandboxId }).nextItems()
      assert.deepEqual(
        listed.map((each) => each.snapshotId),
        [first.snapshotId]
      )
    } finally {
      assert.equal(await Sandbox.deleteSnapshot(first.snapshotId), true)
    }
    assert.equal(await Sandbox.deleteSnapshot(first.snapshotId), false)
    assert.equal((await source.commands.run('echo on')).stdout, 'on\n')
  }))

test('forks have the files and the variables, and names of their own', () =>
  withSandbox(
    async (source) => {
      await source.files.write('/home/user/kept', 'yes')
      const forks = await source.fork({ count: 3 })
      try {
        const ids = new Set([source.sandboxId, ...forks.map((each) => each.sandboxId)])
        assert.equal(ids.size, 4)
        for (const copy of forks) {
          assert.equal(await copy.files.read('/home/user/kept'), 'yes')
          const told = await copy.commands.run('echo $A $E2B_SANDBOX_ID')
          assert.equal(told.stdout, `1 ${copy.sandboxId}\n`)
          await copy.files.write('/home/user/kept', copy.sandboxId)
        }
        assert.equal(await source.files.read('/home/user/kept'), 'yes')
      } finally {
        await Promise.all(forks.map((each) => each.kill?.()))
      }
    },
    { envs: { A: '1' } }
  ))

test('a fork of none or of a paused sandbox is refused', () =>
  withSandbox(async (sandbox) => {
    await assert.rejects(sandbox.fork({ count: 0 }), /Count must be at least 1/)
    await assert.rejects(sandbox.fork({ count: 101 }), /Count cannot be greater than 100/)
    await sandbox.pause()
    await assert.rejects(sandbox.fork(), (error) => {
      assert.ok(error instanceof SandboxError)
      assert.match(error.message, /is paused and cannot be forked; resume it first/)
      return true
    })
  }))
