// Files and watching through the JavaScript SDK.
import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { FileNotFoundError, InvalidArgumentError } from 'e2b'
import { SANDBOX_URL, shared, until } from './support.mjs'

const held = shared()
const folder = () => `/home/user/${randomUUID()}`

test('text, bytes and streams are read as written', async () => {
  const { files } = held.sandbox
  const path = folder()
  const bytes = new Uint8Array(randomBytes(300_000))
  const info = await files.write(`${path}/text`, 'grüße')
  assert.deepEqual({ ...info, metadata: undefined }, { name: 'text', path: `${path}/text`, type: 'file', metadata: undefined })
  assert.equal(await files.read(`${path}/text`), 'grüße')
  await files.write(`${path}/bytes`, bytes.buffer)
  assert.deepEqual(await files.read(`${path}/bytes`, { format: 'bytes' }), bytes)
  await files.write(`${path}/blob`, new Blob([bytes]))
  const blob = await files.read(`${path}/blob`, { format: 'blob' })
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), bytes)
  const stream = await files.read(`${path}/blob`, { format: 'stream' })
  const parts = []
  for await (const part of stream) parts.push(part)
  assert.deepEqual(new Uint8Array(Buffer.concat(parts)), bytes)
  await files.write(`${path}/empty`, '')
  assert.equal(await files.read(`${path}/empty`), '')
})

test('a stream is uploaded', async () => {
  const { files } = held.sandbox
  const path = `${folder()}/streamed`
  await files.write(path, new Blob(['a'.repeat(100_000)]).stream())
  assert.equal((await files.read(path)).length, 100_000)
})

test('many files in one call', async () => {
  const { files } = held.sandbox
  const path = folder()
  const entries = [...Array(10).keys()].map((n) => ({ path: `${path}/${n}`, data: `${n}` }))
  const infos = await files.write(entries)
  assert.deepEqual(infos.map((info) => info.path), entries.map((entry) => entry.path))
  assert.equal(await files.read(`${path}/7`), '7')
})

test('listing, moving and removing', async () => {
  const { files } = held.sandbox
  const path = folder()
  assert.equal(await files.makeDir(`${path}/d`), true)
  assert.equal(await files.makeDir(`${path}/d`), false)
  await files.write(`${path}/d/f`, 'x')
  const listed = await files.list(path, { depth: 2 })
  assert.deepEqual(listed.map((entry) => entry.path), [`${path}/d`, `${path}/d/f`])
  const moved = await files.rename(`${path}/d/f`, `${path}/g`)
  assert.equal(moved.path, `${path}/g`)
  const info = await files.getInfo(`${path}/g`)
  assert.equal(info.size, 1)
  assert.equal(info.permissions, '-rw-r--r--')
  assert.equal(info.owner, 'user')
  await files.remove(path)
  assert.equal(await files.exists(path), false)
})

test('errors have their classes', async () => {
  const { files } = held.sandbox
  await assert.rejects(files.read('/no/such'), FileNotFoundError)
  await assert.rejects(files.list('/no/such'), FileNotFoundError)
  await assert.rejects(files.read('/tmp'), InvalidArgumentError)
})

test('metadata', async () => {
  const { files } = held.sandbox
  const path = `${folder()}/f`
  const info = await files.write(path, 'x', { metadata: { Author: 'me' } })
  assert.deepEqual(info.metadata, { author: 'me' })
  assert.deepEqual((await files.getInfo(path)).metadata, { author: 'me' })
})

test('a watch sees exactly three events of an upload', async () => {
  const { files } = held.sandbox
  const path = folder()
  await files.makeDir(path)
  const events = []
  const watch = await files.watchDir(path, (event) => void events.push(event))
  await files.write(`${path}/f`, 'x')
  await until(() => events.length >= 3, 'three events')
  await files.write('/tmp/fence', 'x')
  assert.deepEqual(events.map((event) => [event.name, event.type]), [
    ['f', 'create'],
    ['f', 'chmod'],
    ['f', 'write'],
  ])
  await watch.stop()
})

test('a recursive watch names the path below', async () => {
  const { files } = held.sandbox
  const path = folder()
  await files.makeDir(`${path}/nested`)
  const events = []
  const watch = await files.watchDir(path, (event) => void events.push(event), { recursive: true })
  await files.write(`${path}/nested/f`, 'x')
  await until(() => events.length >= 3, 'three events')
  assert.deepEqual(new Set(events.map((event) => event.name)), new Set(['nested/f']))
  await watch.stop()
  await assert.rejects(files.watchDir('/no/such', () => {}), FileNotFoundError)
})

test('signed addresses', async () => {
  const { files, sandboxId } = held.sandbox
  await files.write('signed.txt', 'signed')
  const routing = { 'e2b-sandbox-id': sandboxId, 'e2b-sandbox-port': '49983' }
  const down = await held.sandbox.downloadUrl('signed.txt', { useSignatureExpiration: 60 })
  const answer = await fetch(SANDBOX_URL + '/files' + new URL(down).search, { headers: routing })
  assert.equal(await answer.text(), 'signed')
  const bare = await fetch(SANDBOX_URL + '/files?path=signed.txt', { headers: routing })
  assert.equal(bare.status, 401)
  const form = new FormData()
  form.append('file', new Blob(['up']), 'x')
  const up = await held.sandbox.uploadUrl('up.txt')
  const sent = await fetch(SANDBOX_URL + '/files' + new URL(up).search, {
    method: 'POST',
    headers: routing,
    body: form,
  })
  assert.equal(sent.status, 200)
  assert.equal(await files.read('up.txt'), 'up')
})
