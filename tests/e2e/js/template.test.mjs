// Templates built with the JavaScript SDK.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { chmod, mkdtemp, mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  BuildError,
  Sandbox,
  Template,
  waitForFile,
  waitForPort,
  waitForProcess,
  waitForTimeout,
  waitForURL,
} from 'e2b'
import { api } from './support.mjs'

const made = []
let context

before(async () => {
  context = await mkdtemp(join(tmpdir(), 'warren-template-'))
  await mkdir(join(context, 'tree/sub'), { recursive: true })
  await writeFile(join(context, 'tree/run.sh'), '#!/bin/sh\necho ran\n')
  await chmod(join(context, 'tree/run.sh'), 0o755)
  await writeFile(join(context, 'tree/sub/.dot'), 'dot\n')
  await writeFile(join(context, 'tree/skipped.log'), 'x')
  await symlink('run.sh', join(context, 'tree/link'))
  await writeFile(join(context, 'one.txt'), 'one\n')
  await writeFile(join(context, '.dockerignore'), '**/*.log\n')
})

after(async () => {
  for (const name of made) await api(`/templates/${name}`, { method: 'DELETE' })
  await rm(context, { recursive: true, force: true })
})

function fresh() {
  const name = `js-${randomUUID().slice(0, 12)}`
  made.push(name)
  return name
}

async function build(template, name, options = {}) {
  const lines = []
  const onBuildLogs = (line) => lines.push(line.message)
  const info = await Template.build(template, name, { onBuildLogs, ...options })
  return { info, lines }
}

/** What a step wrote. */
function output(lines, step) {
  const mark = new RegExp(`^\\[builder ${step}/\\d+\\] \\[stdout\\]: (.*)$`)
  return lines.map((line) => line.match(mark)?.[1]).filter((text) => text !== undefined)
}

test('copies, variables, users and directories', async () => {
  const name = fresh()
  const template = () => Template({ fileContextPath: context })
    .fromBaseImage()
    .setWorkdir('/srv/app')
    .copy('tree', 'tree')
    .copy('one.txt', '/opt/', { user: 'root', mode: 0o640 })
    .copy('tree/*.sh', '/srv/globbed/')
    .setEnvs({ A: 'a "b" `c` $(d)', B: '${A}/x', PATH: '${PATH}:/my/path' })
    .runCmd('./tree/link; cat tree/sub/.dot; ls -A tree; echo "$B"')
    .runCmd("stat -c '%U %a' /opt/one.txt tree/run.sh /srv/globbed/run.sh", { user: 'root' })
    .runCmd('[[ $PATH == *:/my/path ]] && id -un && pwd')
  const { info, lines } = await build(template(), name, { skipCache: true })
  assert.match(info.buildId, /^[0-9a-f-]{36}$/)
  const expected = ['ran', 'dot', 'link', 'run.sh', 'sub']
  assert.deepEqual(output(lines, 6), [...expected, 'a "b" `c` $(d)/x'])
  assert.deepEqual(output(lines, 7), ['root 640', 'user 755', 'user 755'])
  assert.deepEqual(output(lines, 8), ['user', '/srv/app'])
  const again = await build(template(), name)
  const cached = again.lines.filter((line) => line.startsWith('CACHED [builder '))
  assert.equal(cached.length, 8)
  const sandbox = await Sandbox.create(name, { timeoutMs: 60_000 })
  try {
    assert.equal((await sandbox.commands.run('pwd')).stdout, '/srv/app\n')
  } finally {
    await sandbox.kill()
  }
})

test('a failing step is an error with its message at its line', async () => {
  const template = Template({ fileContextPath: context })
    .fromBaseImage()
    .copy(['one.txt', 'tree'], '/srv/')
    .runCmd('exit 7')
  const error = await Template.build(template, fresh()).then(
    () => assert.fail('it was built'),
    (error) => error
  )
  assert.ok(error instanceof BuildError, String(error))
  assert.equal(error.message, "failed to run command 'exit 7': exit status 7")
  assert.match(error.stack, /template\.test\.mjs:\d+/)
  const missing = Template().fromTemplate('no-such-template')
  await assert.rejects(Template.build(missing, fresh()), /template 'no-such-template' not found/)
})

for (const [kind, start, ready] of [
  ['port', 'python3 -m http.server 8125', waitForPort(8125)],
  ['url', 'python3 -m http.server 8125', waitForURL('http://localhost:8125/', 200)],
  ['process', 'sleep 600', waitForProcess('sleep')],
  ['file', 'touch /tmp/up; sleep 600', waitForFile('/tmp/up')],
  ['timeout', 'sleep 600', waitForTimeout(1000)],
]) {
  test(`a template that waits for a ${kind}`, async () => {
    const name = fresh()
    const template = Template().fromBaseImage().setStartCmd(start, ready)
    const { lines } = await build(template, name)
    assert.ok(lines.includes('Template is ready'), lines.join('\n'))
  })
}

test('tags and existence', async () => {
  const name = fresh()
  const template = Template().fromBaseImage().runCmd('true')
  const { info } = await build(template, `${name}:v1`)
  assert.deepEqual(info.tags, ['v1'])
  assert.equal(await Template.exists(`${name}:v1`), true)
  assert.equal(await Template.exists(`${name}:v2`), false)
  const moved = await Template.assignTags(`${name}:v1`, ['stable', 'default'])
  assert.equal(moved.buildId, info.buildId)
  const tags = await Template.getTags(name)
  assert.deepEqual(tags.map((tag) => tag.tag).sort(), ['default', 'stable', 'v1'])
  await Template.removeTags(name, 'stable')
  assert.equal(await Template.exists(`${name}:stable`), false)
  await assert.rejects(Template.removeTags(name, 'default'), /Cannot delete the 'default' tag/)
})

test('skipCache in the middle makes that step and the later ones anew', async () => {
  const name = fresh()
  const template = (skip) => {
    const start = Template().fromBaseImage().runCmd(`echo ${name} > a`)
    return (skip ? start.skipCache() : start).runCmd('cat a').runCmd('echo 3')
  }
  await build(template(false), name)
  const { lines } = await build(template(true), name)
  const cached = lines.filter((line) => line.startsWith('CACHED [builder '))
  assert.deepEqual(cached.length, 1, lines.join('\n'))
  const status = await Template.getBuildStatus((await build(template(false), name)).info)
  assert.equal(status.status, 'ready')
})

test('children inherit variables and directory', async () => {
  const [parent, child] = [fresh(), fresh()]
  const first = Template().fromBaseImage().setEnvs({ ONE: '1' }).setWorkdir('/srv')
  await build(first, parent)
  const second = Template().fromTemplate(parent).setEnvs({ TWO: '2' }).runCmd('echo $ONE$TWO $PWD')
  const { lines } = await build(second, child, { skipCache: true })
  assert.deepEqual(output(lines, 2), ['12 /srv'])
})
