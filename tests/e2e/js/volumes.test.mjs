// Volumes through the JavaScript SDK.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { Sandbox, Volume } from 'e2b'

async function withVolume(run) {
  const volume = await Volume.create(`js-${randomUUID()}`)
  try {
    await run(volume)
  } finally {
    await Volume.destroy(volume.volumeId)
  }
}

test('a volume is made, refused twice, and destroyed once', async () => {
  const name = `js-${randomUUID()}`
  const volume = await Volume.create(name)
  await assert.rejects(Volume.create(name), /already exists/)
  assert.equal((await Volume.connect(volume.volumeId)).name, name)
  assert.ok((await Volume.list()).some((one) => one.volumeId === volume.volumeId))
  assert.equal(await Volume.destroy(volume.volumeId), true)
  assert.equal(await Volume.destroy(volume.volumeId), false)
})

test('files are written, refused, replaced, read and removed', async () => {
  await withVolume(async (volume) => {
    await volume.makeDir('/a/b', { force: true })
    await volume.writeFile('/a/b/f', 'one', { mode: 0o600 })
    await assert.rejects(volume.writeFile('/a/b/f', 'two'))
    await volume.writeFile('/a/b/f', 'two', { force: true })
    assert.equal(await volume.readFile('/a/b/f'), 'two')
    await volume.writeFile('/empty', '')
    assert.equal(await volume.readFile('/empty'), '')
    const paths = (await volume.list('/', { depth: 3 })).map((entry) => entry.path)
    assert.deepEqual(paths, ['/a', '/a/b', '/a/b/f', '/empty'])
    await volume.remove('/a')
    assert.equal(await volume.exists('/a/b'), false)
  })
})

test('a sandbox and the client see the same', async () => {
  await withVolume(async (volume) => {
    await volume.writeFile('/in', 'from outside')
    const sandbox = await Sandbox.create({ volumeMounts: { '/mnt/v': volume }, timeoutMs: 120_000 })
    try {
      assert.equal(await sandbox.files.read('/mnt/v/in'), 'from outside')
      await sandbox.commands.run('echo -n from inside > /mnt/v/out')
      assert.equal(await volume.readFile('/out'), 'from inside')
    } finally {
      await sandbox.kill()
    }
  })
})
