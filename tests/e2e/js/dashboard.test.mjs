// The dashboard in a browser: every page and action, by mouse and by keyboard alone, on a
// desk and on a phone, in light and dark. Needs Chromium: `chromium` of the search path, or
// what WARREN_CHROMIUM names. WARREN_SCREENSHOTS names a directory for pictures of every page.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { chromium } from 'playwright-core'
import { Sandbox } from 'e2b'
import { API_KEY, API_URL, api, until } from './support.mjs'

function browserPath() {
  if (process.env.WARREN_CHROMIUM) return process.env.WARREN_CHROMIUM
  try {
    return execFileSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim()
  } catch {
    throw new Error('there is no chromium on the search path; install the Debian package `chromium`, or set WARREN_CHROMIUM')
  }
}

const PROGRAM = browserPath()
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
assert.ok(process.env.WARREN_DATA_DIR, 'WARREN_DATA_DIR is not set: start the suite through its runner')
const ADMIN_TOKEN = readFileSync(join(process.env.WARREN_DATA_DIR, 'admin-token'), 'utf8').trim()
const PICTURES = process.env.WARREN_SCREENSHOTS
const LIMIT = 30_000
/** Sandboxes of a list that has pages; WARREN_MANY makes it longer. */
const MANY = Number(process.env.WARREN_MANY ?? 60)

describe('dashboard', () => {
  let browser, sandbox, problems

  before(async () => {
    browser = await chromium.launch({ executablePath: PROGRAM, args: ['--no-sandbox'] })
    sandbox = await Sandbox.create({ timeoutMs: 600_000, metadata: { suite: 'dashboard' } })
    if (PICTURES) mkdirSync(PICTURES, { recursive: true })
  })

  after(async () => {
    await browser?.close()
    await sandbox?.kill()
  })

  /** A page of a fresh browser; what its console or our policy complains of fails the test. */
  async function open(options = {}) {
    const context = await browser.newContext(options)
    const page = await context.newPage()
    page.setDefaultTimeout(LIMIT)
    problems = []
    page.on('pageerror', (error) => problems.push(error.message))
    page.on('console', (message) => {
      if (message.type() === 'error' && !/status of 40[04]/.test(message.text())) problems.push(message.text())
    })
    page.on('dialog', (dialog) => dialog.accept())
    return page
  }

  async function signIn(page, path = '/dashboard', credential = API_KEY) {
    await page.goto(API_URL + path)
    await page.getByLabel('API key').fill(credential)
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.getByRole('button', { name: 'Sign out' }).waitFor()
  }

  /** A call of the administrator. */
  async function admin(path, method, body) {
    const answer = await api(path, { method, body, headers: { 'X-Admin-Token': ADMIN_TOKEN } })
    const text = await answer.text()
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`)
    return text ? JSON.parse(text) : undefined
  }

  /** A person who is in two teams that are made for it. */
  async function team() {
    const tag = randomUUID().slice(0, 8)
    const names = [`Left ${tag}`, `Right ${tag}`]
    const user = await admin('/admin/users', 'POST', { email: `${tag}@example.com` })
    const made = []
    for (const name of names) {
      const one = await admin('/admin/teams', 'POST', { name })
      const id = one.teamID
      made.push(id)
      await admin(`/admin/teams/${id}/members/${user.id}`, 'PUT', { role: 'member' })
    }
    const token = (await admin(`/admin/users/${user.id}/access-tokens`, 'POST', { name: 'dash' })).token
    const remove = async () => {
      await admin(`/admin/users/${user.id}`, 'DELETE')
      for (const id of made) await admin(`/admin/teams/${id}`, 'DELETE')
    }
    return { names, token, remove }
  }

  /** Every page that there is without making anything for it. */
  const PATHS = () => [
    '', '/templates', '/snapshots', '/volumes', '/secrets', '/events', '/webhooks', '/usage', '/team',
    '/ssh-keys', '/audit', '/server', '/webhooks/nosuch', `/sandboxes/${sandbox.sandboxId}`,
    `/sandboxes/${sandbox.sandboxId}/ended`,
  ]

  async function picture(page, name) {
    if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true })
  }

  /** No page is wider than its window: only what scrolls by itself may be. */
  async function fits(page) {
    const width = page.viewportSize().width
    const over = (await page.evaluate(() => document.documentElement.scrollWidth)) - width
    assert.ok(over <= 0, `${page.url()} is ${over} pixels too wide`)
  }

  /** What axe-core finds wrong with a page, by the rules of WCAG 2.2 AA. */
  async function faults(page) {
    // Evaluated by the browser itself: our policy lets no foreign script into the page.
    await page.evaluate(AXE)
    const found = await page.evaluate(() =>
      globalThis.axe.run(document, {
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
      })
    )
    return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' | ').slice(0, 400)}`)
  }

  async function done(page) {
    await page.context().close()
    assert.deepEqual(problems, [])
  }

  test('a wrong key is refused, and the sign-in leads to the page that was asked for', async () => {
    const page = await open()
    await page.goto(`${API_URL}/dashboard/usage`)
    await page.getByLabel('API key').fill('e2b_' + '0'.repeat(40))
    await page.keyboard.press('Enter')
    await page.getByRole('alert').waitFor()
    await picture(page, 'sign-in-refused')
    problems = problems.filter((text) => !/401/.test(text))
    await page.getByLabel('API key').fill(API_KEY)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Usage' }).waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('API key').waitFor()
    await done(page)
  })

  test('the page of a sandbox shows and does everything', async () => {
    const page = await open()
    await signIn(page, `/dashboard/sandboxes/${sandbox.sandboxId}`)
    const part = (name) => page.locator('section').filter({ has: page.getByRole('heading', { name }) })
    await page.getByText('Time left').waitFor()

    await page.getByRole('button', { name: 'Open a terminal' }).click()
    await page.getByText('Connected.').waitFor()
    await page.keyboard.type('echo typed-$((40+2)) > /home/user/typed.txt; cat typed.txt\n')
    await page.locator('#terminal').getByText('typed-42').first().waitFor()

    const files = part('Files')
    await files.getByRole('button', { name: '/', exact: true }).first().waitFor()
    await files.getByLabel('Upload here').setInputFiles({
      name: 'sent.txt',
      mimeType: 'text/plain',
      buffer: Buffer.from('sent by the browser\n'),
    })
    await files.getByRole('button', { name: 'sent.txt', exact: true }).click()
    await files.getByText('sent by the browser').waitFor()
    await files.getByRole('button', { name: 'typed.txt', exact: true }).click()
    await files.locator('pre').getByText('typed-42').waitFor()
    const loading = page.waitForEvent('download')
    await files.getByRole('button', { name: 'Download sent.txt' }).click()
    assert.equal((await loading).suggestedFilename(), 'sent.txt')
    await files.getByLabel('Name of the new folder').fill('made')
    await files.getByRole('button', { name: 'New folder' }).click()
    await files.getByRole('button', { name: 'made/' }).waitFor()
    await files.getByRole('button', { name: 'Delete sent.txt' }).click()
    await until(async () => !(await sandbox.files.exists('/home/user/sent.txt')), 'the file to go')

    const sleeping = await sandbox.commands.run('exec sleep 4321', { background: true })
    const processes = part('Processes')
    await processes.getByText('sleep 4321').waitFor()
    await picture(page, 'sandbox')
    await processes.getByRole('button', { name: `Kill process ${sleeping.pid}` }).click()
    await processes.getByText('sleep 4321').waitFor({ state: 'detached' })
    await sleeping.wait().catch(() => {})

    await sandbox.commands.run('python3 -m http.server 8123 >/dev/null 2>&1 &')
    await until(async () => {
      await page.getByRole('button', { name: 'Look for open ports' }).click()
      await page.locator('#ports p, #ports ul').first().waitFor()
      return page.getByRole('link', { name: 'Port 8123' }).isVisible()
    }, 'the port')
    const link = await page.getByRole('link', { name: 'Port 8123' }).getAttribute('href')
    assert.match(link, new RegExp(`^http://8123-${sandbox.sandboxId}\\.`))

    await page.locator('#figures figure').first().waitFor()
    await page.getByLabel('Figures of the last').selectOption({ label: 'hour' })
    await page.locator('#figures svg[aria-label*="60 minutes"]').first().waitFor()
    const log = part('Log')
    const started = log.locator('pre').getByText('sandbox started')
    const ended = log.locator('pre').getByText('process ended').first()
    await started.waitFor()
    await log.getByLabel('Containing').fill('process ended')
    await ended.waitFor()
    await started.waitFor({ state: 'detached' })
    await log.getByLabel('Containing').fill('')
    await log.getByLabel('Source').selectOption({ label: 'server' })
    await started.waitFor()
    await ended.waitFor({ state: 'detached' })
    await log.getByLabel('Source').selectOption({ label: 'all' })
    await ended.waitFor()
    await log.getByLabel('Severity').selectOption({ label: 'error' })
    await started.waitFor({ state: 'detached' })
    await log.getByLabel('Severity').selectOption({ label: 'all' })
    await started.waitFor()
    await log.getByLabel('To', { exact: true }).fill('2020-01-01T00:00')
    await log.getByText('No lines.').waitFor()
    await log.getByLabel('To', { exact: true }).fill('')
    await log.getByLabel('From').fill('2020-01-01T00:00')
    await started.waitFor()
    await part('Events').getByText('created').waitFor()

    await page.locator('select[name=seconds]').selectOption('3600')
    await page.getByRole('button', { name: 'Set' }).click()
    await page.locator('dd').getByText(/^(59 min|1 h)/).waitFor()
    await done(page)
  })

  test('a sandbox is made, paused, resumed, copied, kept and ended by buttons', async () => {
    const page = await open()
    await signIn(page)
    await page.getByLabel('Template').fill('base')
    await page.getByRole('button', { name: 'Create a sandbox' }).click()
    await page.getByRole('button', { name: 'Pause', exact: true }).click()
    await page.getByRole('button', { name: 'Resume' }).waitFor()
    await picture(page, 'sandbox-paused')
    const id = new URL(page.url()).pathname.split('/').pop()
    await page.getByRole('button', { name: 'Resume' }).click()
    await page.getByRole('button', { name: 'Fork' }).click()
    await page.waitForURL((url) => !url.pathname.endsWith(id))
    await page.getByRole('button', { name: 'Kill' }).click()
    await page.getByRole('heading', { name: 'Sandboxes' }).waitFor()

    const name = `dash-${randomUUID().slice(0, 8)}`
    await page.goto(`${API_URL}/dashboard/sandboxes/${id}`)
    await page.getByLabel('Snapshot').fill(name)
    await page.getByRole('button', { name: 'Make' }).click()
    await page.getByRole('heading', { name: 'The snapshot is made' }).waitFor()
    await page.getByRole('link', { name: 'All snapshots' }).click()
    const row = page.getByRole('row').filter({ hasText: name })
    await picture(page, 'snapshots')
    await row.getByRole('button', { name: 'Create a sandbox' }).click()
    await page.getByRole('button', { name: 'Kill' }).click()
    await page.goto(`${API_URL}/dashboard/snapshots`)
    await row.getByRole('button', { name: 'Delete' }).click()
    await row.waitFor({ state: 'detached' })

    await page.goto(`${API_URL}/dashboard/sandboxes/${id}`)
    await page.getByRole('button', { name: 'Kill' }).click()
    await page.getByRole('heading', { name: 'Sandboxes' }).waitFor()
    assert.equal((await api(`/sandboxes/${id}`)).status, 404)
    await page.goto(`${API_URL}/dashboard/sandboxes/${id}`)
    await page.getByText('This sandbox has ended').waitFor()
    await page.getByLabel('Containing').fill('sandbox started')
    await page.getByRole('button', { name: 'Filter' }).click()
    await page.locator('pre').getByText('sandbox started').first().waitFor()
    await picture(page, 'sandbox-ended')
    await page.goto(`${API_URL}/dashboard/events?sandbox=${id}`)
    for (const kind of ['created', 'paused', 'resumed', 'checkpointed', 'killed']) {
      await page.getByRole('cell', { name: kind, exact: true }).first().waitFor()
    }
    await picture(page, 'events')
    await done(page)
  })

  test('a build is followed while it runs, and its template published and deleted', async () => {
    const page = await open()
    await signIn(page, '/dashboard/templates')
    const name = `dash-${randomUUID().slice(0, 8)}`
    const requested = await (await api('/v3/templates', { method: 'POST', body: { name } })).json()
    const path = `/v2/templates/${requested.templateID}/builds/${requested.buildID}`
    const steps = [{ type: 'RUN', args: ['for i in 1 2 3 4; do echo line-$i; sleep 1; done'] }]
    await api(path, { method: 'POST', body: { fromTemplate: 'base', steps, force: true } })
    await page.goto(`${API_URL}/dashboard/templates/${requested.templateID}/builds/${requested.buildID}`)
    await page.getByText('line-1').first().waitFor()
    await page.getByText('line-4').first().waitFor()
    await page.locator('.state.ready').waitFor()
    await picture(page, 'build')
    await page.getByRole('link', { name: 'The template' }).click()
    await page.getByRole('button', { name: 'Publish to other teams' }).click()
    await page.getByRole('button', { name: 'Unpublish' }).click()
    await page.getByRole('button', { name: 'Publish to other teams' }).waitFor()
    await picture(page, 'template')
    await page.getByRole('button', { name: 'Delete' }).click()
    await page.getByRole('heading', { name: 'Templates' }).waitFor()
    assert.equal(await page.getByText(name).count(), 0)
    await picture(page, 'templates')
    await done(page)
  })

  test('volumes are made, browsed and deleted', async () => {
    const page = await open()
    await signIn(page, '/dashboard/volumes')
    const name = `dash-${randomUUID().slice(0, 8)}`
    await page.getByLabel('Name').fill(name)
    await page.getByRole('button', { name: 'Create a volume' }).click()
    const row = page.getByRole('row').filter({ hasText: name })
    await row.waitFor()
    const mounts = [{ name, path: '/data' }]
    const made = await (
      await api('/v2/sandboxes', { method: 'POST', body: { templateID: 'base', timeout: 60, volumeMounts: mounts } })
    ).json()
    const inside = await Sandbox.connect(made.sandboxID)
    await inside.commands.run('mkdir -p /data/inner && echo durable > /data/inner/kept.txt', { user: 'root' })
    await inside.kill()
    await picture(page, 'volumes')
    await row.getByRole('link', { name }).click()
    await page.getByRole('link', { name: 'inner/' }).click()
    await picture(page, 'volume')
    const loading = page.waitForEvent('download')
    await page.getByRole('link', { name: 'Download kept.txt' }).click()
    assert.equal((await loading).suggestedFilename(), 'kept.txt')
    await page.getByRole('link', { name: 'kept.txt', exact: true }).click()
    await page.getByText('durable').waitFor()
    await picture(page, 'volume-file')
    await page.goBack()
    await page.getByLabel('New folder').fill('added')
    await page.getByRole('button', { name: 'Make' }).click()
    await page.getByRole('link', { name: 'added/' }).click()
    await page.getByText('Nothing in here.').waitFor()
    const sent = [1, 2].map((number) => ({
      name: `sent "${number}".txt`,
      mimeType: 'text/plain',
      buffer: Buffer.from(`sent to a volume ${number}\n`),
    }))
    await page.getByLabel('Upload here').setInputFiles(sent)
    await page.getByRole('link', { name: 'sent "2".txt', exact: true }).click()
    await page.getByText('sent to a volume 2').waitFor()
    await page.goBack()
    await page.getByRole('button', { name: 'Delete sent "1".txt' }).click()
    await page.getByRole('link', { name: 'sent "1".txt', exact: true }).waitFor({ state: 'detached' })
    const content = { name, path: '/data' }
    const again = await (
      await api('/v2/sandboxes', { method: 'POST', body: { templateID: 'base', timeout: 60, volumeMounts: [content] } })
    ).json()
    const reader = await Sandbox.connect(again.sandboxID)
    assert.equal(await reader.files.read('/data/inner/added/sent "2".txt'), 'sent to a volume 2\n')
    await reader.files.write('/data/inner/added/mine.txt', 'of the user')
    await reader.kill()
    await page.goto(`${API_URL}/dashboard/volumes`)
    await row.getByRole('button', { name: 'Delete' }).click()
    await row.waitFor({ state: 'detached' })
    await done(page)
  })

  test('webhooks are made, switched and deleted, and their deliveries shown', async () => {
    const page = await open()
    await signIn(page, '/dashboard/webhooks')
    await page.getByLabel('Name').fill('odd one')
    await page.getByLabel('Address').fill('ftp://nowhere.example/')
    await page.getByRole('button', { name: 'Create a webhook' }).click()
    await page.getByRole('alert').waitFor()
    await picture(page, 'refused')
    await page.getByRole('link', { name: 'Back' }).click()
    const name = `dash-${randomUUID().slice(0, 8)}`
    await page.getByLabel('Name').fill(name)
    // There is no such host, so each try fails and is told.
    await page.getByLabel('Address').fill('https://hooks.invalid/in')
    await page.getByLabel('updated').uncheck()
    await page.getByRole('button', { name: 'Create a webhook' }).click()
    await page.getByText('shown only now').waitFor()
    await picture(page, 'webhooks')
    const row = page.getByRole('row').filter({ hasText: name })
    await row.getByRole('button', { name: 'Turn off' }).click()
    await row.getByRole('button', { name: 'Turn on' }).waitFor()
    await row.getByRole('link', { name }).click()
    await page.getByRole('heading', { name: 'Deliveries' }).waitFor()
    await page.getByText('None yet.').waitFor()
    await page.goto(`${API_URL}/dashboard/webhooks`)
    await row.getByRole('button', { name: 'Turn on' }).click()
    await row.getByRole('button', { name: 'Turn off' }).waitFor()
    const told = await Sandbox.create({ timeoutMs: 60_000 })
    await told.kill()
    await row.getByRole('link', { name }).click()
    for (const kind of ['created', 'killed']) {
      const delivery = page.getByRole('row').filter({ hasText: told.sandboxId }).filter({ hasText: kind })
      await delivery.filter({ hasText: /[1-9]\d* ms/ }).waitFor()
    }
    await picture(page, 'webhook')
    await page.getByRole('link', { name: 'All webhooks' }).click()
    await row.getByRole('button', { name: 'Delete' }).click()
    await row.waitFor({ state: 'detached' })
    await done(page)
  })

  test('keys are made, used, renamed and deleted, and who only reads changes nothing', async () => {
    const page = await open()
    await signIn(page, '/dashboard/team')
    const name = `dash-${randomUUID().slice(0, 8)}`
    await page.getByLabel('Name', { exact: true }).fill(name)
    await page.getByLabel('Scope').selectOption('read')
    await page.getByLabel('Works for days').fill('2')
    await page.getByRole('button', { name: 'Create a key' }).click()
    const key = await page.locator('#made').textContent()
    assert.match(key, /^e2b_[0-9a-f]{40}$/)
    const list = (method) => fetch(`${API_URL}/v2/sandboxes`, { method, headers: { 'X-API-Key': key } })
    assert.equal((await list('GET')).status, 200)

    const reader = await open()
    await reader.goto(`${API_URL}/dashboard`)
    await reader.getByLabel('API key').fill(key)
    await reader.keyboard.press('Enter')
    await reader.getByText('change nothing').waitFor()
    assert.equal(await reader.getByRole('button', { name: 'Create a sandbox' }).count(), 0)
    await reader.goto(`${API_URL}/dashboard/sandboxes/${sandbox.sandboxId}`)
    assert.equal(await reader.locator('#agent').getAttribute('data-token'), '')
    assert.equal(await reader.getByRole('button', { name: 'Kill' }).count(), 0)
    assert.equal(await reader.getByRole('heading', { name: 'Terminal' }).count(), 0)
    await reader.locator('#figures figure').first().waitFor()
    await picture(reader, 'sandbox-read-only')
    await reader.goto(`${API_URL}/dashboard/team`)
    await picture(reader, 'team-read-only')
    await reader.context().close()

    await page.getByLabel(`New name of ${name}`).fill(`${name}-b`)
    await page.getByRole('button', { name: `Rename ${name}` }).click()
    await picture(page, 'team')
    await page.getByRole('button', { name: `Delete ${name}-b` }).click()
    await page.getByRole('button', { name: `Delete ${name}-b` }).waitFor({ state: 'detached' })
    assert.equal((await list('GET')).status, 401)
    problems = problems.filter((text) => !/40[013]/.test(text))
    await done(page)
  })

  test('secrets go in by name and their values never come out', async () => {
    const page = await open()
    await signIn(page, '/dashboard/secrets')
    const name = `dash-${randomUUID().slice(0, 8)}`
    await page.getByLabel('Name', { exact: true }).fill(name)
    await page.getByLabel('Value').fill('never-shown')
    await page.getByRole('button', { name: 'Create a secret' }).click()
    const row = page.getByRole('row').filter({ hasText: name })
    await row.waitFor()
    assert.ok(!(await page.content()).includes('never-shown'))
    await row.getByLabel(`New value of ${name}`).fill('never-shown-either')
    await row.getByRole('button', { name: `Replace ${name}` }).click()
    await row.getByRole('cell', { name: '2', exact: true }).waitFor()
    assert.ok(!(await page.content()).includes('never-shown'))
    await picture(page, 'secrets')
    await row.getByRole('button', { name: 'Delete' }).click()
    await row.waitFor({ state: 'detached' })
    await done(page)
  })

  test('SSH keys are added and deleted, and the trail tells of it', async () => {
    const page = await open()
    await signIn(page, '/dashboard/team')
    await page.getByRole('link', { name: 'SSH keys' }).click()
    const name = `dash-${randomUUID().slice(0, 8)}`
    const digits = Buffer.from(randomUUID().replaceAll('-', ''), 'utf8')
    const blob = Buffer.concat([
      Buffer.from([0, 0, 0, 11]), Buffer.from('ssh-ed25519'), Buffer.from([0, 0, 0, 32]), digits,
    ])
    await page.getByLabel('Public key').fill('no key at all')
    await page.getByRole('button', { name: 'Add the key' }).click()
    await page.getByRole('alert').waitFor()
    problems = problems.filter((text) => !/400/.test(text))
    await page.getByRole('link', { name: 'Back' }).click()
    await page.getByLabel('Public key').fill(`ssh-ed25519 ${blob.toString('base64')} ${name}`)
    await page.getByRole('button', { name: 'Add the key' }).click()
    const row = page.getByRole('row').filter({ hasText: name })
    await row.getByText('SHA256:').waitFor()
    await picture(page, 'ssh-keys')
    await row.getByRole('button', { name: 'Delete' }).click()
    await row.waitFor({ state: 'detached' })
    await page.getByRole('link', { name: 'Audit trail' }).click()
    await page.getByLabel('Begins with').fill('POST /dashboard/ssh-keys')
    await page.getByRole('button', { name: 'Filter' }).click()
    await page.getByRole('cell', { name: 'POST /dashboard/ssh-keys/{id}/delete' }).first().waitFor()
    await page.getByRole('row').filter({ hasText: '400' }).first().waitFor()
    await picture(page, 'audit')
    await done(page)
  })

  test('a person goes from team to team, and makes and deletes access tokens', async () => {
    const page = await open()
    const people = await team()
    await signIn(page, '/dashboard', people.token)
    const chooser = page.getByRole('combobox', { name: 'Team' })
    const first = (await chooser.locator('option:checked').textContent()).trim()
    const other = people.names.find((name) => name !== first)
    await picture(page, 'chooser')
    const left = await page.context().newPage()
    await left.goto(`${API_URL}/dashboard`)
    await chooser.selectOption({ label: other })
    await page.getByRole('button', { name: 'Switch' }).click()
    await page.getByRole('heading', { name: 'Sandboxes' }).waitFor()
    assert.equal((await chooser.locator('option:checked').textContent()).trim(), other)
    // The page that was left open follows by itself instead of mixing two teams.
    await until(async () => {
      const shown = left.getByRole('combobox', { name: 'Team' }).locator('option:checked')
      return (await shown.textContent().catch(() => '')).trim() === other
    }, 'the other page to follow')
    problems = problems.filter((text) => !/409/.test(text))
    await left.close()
    await page.getByRole('link', { name: 'Team', exact: true }).click()
    await page.getByRole('heading', { name: `Team ${other}` }).waitFor()
    await page.getByRole('link', { name: 'Your access tokens' }).click()
    await page.getByLabel('Name', { exact: true }).fill('laptop')
    await page.getByRole('button', { name: 'Create a token' }).click()
    const token = await page.locator('#made').textContent()
    assert.match(token, /^sk_e2b_[0-9a-f]{40}$/)
    await picture(page, 'tokens')
    await page.getByRole('button', { name: 'Delete laptop' }).click()
    await page.getByRole('button', { name: 'Delete laptop' }).waitFor({ state: 'detached' })
    await done(page)
    await people.remove()
  })

  test('the administrator makes, changes and deletes teams', async () => {
    const page = await open()
    await signIn(page, '/dashboard/server', ADMIN_TOKEN)
    const name = `Dash ${randomUUID().slice(0, 8)}`
    const slug = name.toLowerCase().replace(' ', '-')
    await page.getByLabel('Name', { exact: true }).fill(name)
    await page.getByLabel('Sandboxes at a time', { exact: true }).fill('3')
    await page.getByRole('button', { name: 'Create a team' }).click()
    assert.match(await page.locator('#made').textContent(), /^e2b_[0-9a-f]{40}$/)
    await page.getByLabel(`State of ${slug}`).selectOption('blocked')
    await page.getByRole('button', { name: `Change ${slug}` }).click()
    await page.waitForURL((url) => url.pathname === '/dashboard/server')
    assert.equal(await page.getByLabel(`State of ${slug}`).inputValue(), 'blocked')
    assert.equal(await page.getByLabel(`Sandboxes of ${slug} at a time`).inputValue(), '3')
    await picture(page, 'server-admin')
    await page.getByRole('button', { name: `Delete ${slug}` }).click()
    await page.getByRole('cell', { name: slug, exact: true }).waitFor({ state: 'detached' })
    await done(page)
  })

  test('the machine is shown to whoever runs it', async () => {
    const page = await open()
    await signIn(page, '/dashboard/server')
    await page.getByRole('meter', { name: 'Memory' }).waitFor()
    await page.getByRole('heading', { name: 'Teams' }).waitFor()
    await picture(page, 'server')
    await done(page)
  })

  test('the keyboard alone is enough', async () => {
    const page = await open()
    await page.goto(`${API_URL}/dashboard`)
    await page.locator('#key:focus').waitFor()
    await page.keyboard.type(API_KEY)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Sandboxes' }).waitFor()
    await page.keyboard.press('Tab')
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content')
    await page.keyboard.press('Enter')
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main')

    /** Tabs until what has the focus is called so; everything on the way must be visible. */
    const reach = async (wanted) => {
      for (let steps = 0; steps < 200; steps++) {
        await page.keyboard.press('Tab')
        const at = await page.evaluate(() => {
          const one = document.activeElement
          const box = one.getBoundingClientRect()
          return { text: (one.ariaLabel || one.textContent).trim(), seen: box.width > 0, ring: getComputedStyle(one).outlineStyle }
        })
        assert.ok(at.seen, `an invisible element has the focus: ${at.text}`)
        if (at.text === wanted) return assert.notEqual(at.ring, 'none', `${wanted} shows no focus`)
      }
      assert.fail(`${wanted} is not reached`)
    }
    await reach(sandbox.sandboxId)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: sandbox.sandboxId }).waitFor()
    await reach('Set')
    await page.keyboard.press('Enter')
    await page.waitForLoadState()
    // What was set is short, and the tests after this one use it too.
    await sandbox.setTimeout(1_800_000)
    await page.locator('#files table, #files .empty').first().waitFor()
    await reach('Open a terminal')
    await page.keyboard.press('Enter')
    await page.getByText('Connected.').waitFor()
    await page.keyboard.type('mkdir -p keys && echo by-keys > keys/deep.txt && echo keys-$((1+1))\n')
    await page.locator('#terminal').getByText('keys-2').first().waitFor()

    // Through the files and back out of the terminal, which takes Tab for itself.
    await page.reload()
    await page.getByRole('button', { name: 'keys/', exact: true }).waitFor()
    await reach('keys/')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'deep.txt', exact: true }).waitFor()
    await reach('deep.txt')
    await page.keyboard.press('Enter')
    await page.locator('#files pre').getByText('by-keys').waitFor()

    // Makes a sandbox, sets it aside, and ends it.
    await page.keyboard.press('Control+Home')
    await page.goto(`${API_URL}/dashboard`)
    await reach('Create a sandbox')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Fork' }).waitFor()
    await reach('Pause')
    await page.keyboard.press('Enter')
    await page.getByRole('button', { name: 'Resume' }).waitFor()
    await reach('Kill')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Sandboxes' }).waitFor()
    await reach('Sign out')
    await page.keyboard.press('Enter')
    await page.locator('#key:focus').waitFor()
    await done(page)
  })

  for (const colorScheme of ['light', 'dark']) {
    test(`no page breaks the rules of accessibility, in ${colorScheme}`, async () => {
      const page = await open({ colorScheme })
      await page.goto(`${API_URL}/dashboard/sign-in`)
      assert.deepEqual(await faults(page), [], 'sign-in')
      await signIn(page, '/dashboard', ADMIN_TOKEN)
      for (const path of PATHS()) {
        await page.goto(`${API_URL}/dashboard${path}`)
        if (path === `/sandboxes/${sandbox.sandboxId}`) {
          await page.locator('#figures figure').first().waitFor()
          await page.locator('#files table, #files .empty').first().waitFor()
          await page.locator('#log pre').waitFor()
        }
        assert.deepEqual(await faults(page), [], path)
        assert.equal(await page.locator('h1').count(), 1, path)
      }
      await done(page)
    })
  }

  for (const [device, options] of Object.entries({
    phone: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
    'small phone': { viewport: { width: 320, height: 640 }, isMobile: true, hasTouch: true },
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
  })) {
    test(`pages on a ${device} screen`, async () => {
      const page = await open(options)
      await page.goto(`${API_URL}/dashboard/sign-in`)
      await fits(page)
      await picture(page, `${device.replace(' ', '-')}-sign-in`)
      await signIn(page, '/dashboard', ADMIN_TOKEN)
      for (const path of PATHS()) {
        await page.goto(`${API_URL}/dashboard${path}`)
        await page.locator('h1').waitFor()
        if (path === `/sandboxes/${sandbox.sandboxId}`) {
          await page.locator('#figures figure').first().waitFor()
          await page.getByRole('button', { name: 'Open a terminal' }).click()
          await page.getByText('Connected.').waitFor()
          await page.locator('#files table, #files .empty').first().waitFor()
        }
        await fits(page)
        await picture(page, `${device.replace(' ', '-')}${path.replaceAll('/', '-').replace(sandbox.sandboxId, 'one') || '-sandboxes'}`)
      }
      await done(page)
    })
  }

  test('a list of many sandboxes has pages', async () => {
    const page = await open()
    const label = `many-${randomUUID().slice(0, 8)}`
    const made = []
    try {
      for (let left = MANY; left > 0; left -= 10) {
        const batch = Array.from({ length: Math.min(10, left) }, () =>
          api('/v2/sandboxes', { method: 'POST', body: { templateID: 'base', timeout: 120, metadata: { label } } })
        )
        for (const answer of await Promise.all(batch)) {
          assert.equal(answer.status, 201)
          made.push((await answer.json()).sandboxID)
        }
      }
      await signIn(page)
      await page.getByLabel('Label').fill(`label=${label}`)
      await page.getByRole('button', { name: 'Filter' }).click()
      await page.getByRole('link', { name: 'Older' }).waitFor()
      const shown = () => page.locator('tbody tr').count()
      assert.equal(await shown(), 50)
      await picture(page, 'many')
      await page.getByText(`${MANY} such running`).waitFor()
      let seen = 50
      while (await page.getByRole('link', { name: 'Older' }).isVisible()) {
        const from = page.url()
        await page.getByRole('link', { name: 'Older' }).click()
        await page.waitForURL((url) => url.href !== from)
        await page.getByRole('link', { name: 'Newest' }).waitFor()
        seen += await shown()
      }
      assert.equal(seen, MANY)
      await done(page)
    } finally {
      await Promise.all(made.map((id) => api(`/sandboxes/${id}`, { method: 'DELETE' })))
    }
  })
})
