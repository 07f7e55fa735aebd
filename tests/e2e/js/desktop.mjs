// The desktop through its own client. No test of the suite: it needs a server that has the
// template `desktop`, so the suite in Python runs it beside its own. Ends with status 0 if
// everything is as it should be.
import assert from 'node:assert/strict'
import { Sandbox } from '@e2b/desktop'

/** The first value of `probe` that counts, within half a minute. */
async function until(probe, what) {
  const end = Date.now() + 30_000
  for (;;) {
    const value = await probe().catch(() => undefined)
    if (value) return value
    assert.ok(Date.now() < end, what)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

const desktop = await Sandbox.create({ timeoutMs: 300_000 })
try {
  const png = Buffer.from(await desktop.screenshot())
  assert.equal(png.subarray(1, 4).toString(), 'PNG')
  assert.deepEqual(await desktop.getScreenSize(), { width: 1024, height: 768 })
  await desktop.moveMouse(200, 300)
  assert.deepEqual(await desktop.getCursorPosition(), { x: 200, y: 300 })
  await desktop.drag([300, 300], [320, 330])
  assert.deepEqual(await desktop.getCursorPosition(), { x: 320, y: 330 })
  for (const click of ['leftClick', 'rightClick', 'middleClick', 'doubleClick']) {
    await desktop[click](400, 400)
    await desktop.press('esc')
  }
  await desktop.scroll('down', 2)
  await desktop.launch('xfce4-terminal')
  const windows = () => desktop.getApplicationWindows('xfce4-terminal')
  const [window] = await until(async () => (await windows()).length && (await windows()), 'a window')
  assert.match(await desktop.getWindowTitle(window), /Terminal/)
  await until(async () => {
    await desktop.write('echo typed > /tmp/typed-js')
    await desktop.press('enter')
    return desktop.files.exists('/tmp/typed-js')
  }, 'what is typed arrives')
  assert.notDeepEqual(Buffer.from(await desktop.screenshot()), png)
  await desktop.stream.start({ requireAuth: true })
  const authKey = desktop.stream.getAuthKey()
  const url = new URL(desktop.stream.getUrl({ authKey }))
  assert.equal(url.searchParams.get('password'), authKey)
  const headers = { 'e2b-sandbox-id': desktop.sandboxId, 'e2b-sandbox-port': '6080' }
  const page = await fetch(`${process.env.E2B_SANDBOX_URL}${url.pathname}`, { headers })
  assert.equal(page.status, 200)
  assert.match(await page.text(), /noVNC/)
  await desktop.stream.stop()
} finally {
  await desktop.kill()
}
