"""Sandboxes that are restored from one ready state: what they must not share."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2b_code_interpreter import Sandbox

from support import env

pytestmark = pytest.mark.timeout(180)
COUNT = 4

# Facts of a kernel that another one may not have, one of each kind that libraries make.
DRAWN = """
import json, os, random, secrets, ssl, tempfile, uuid
import numpy
def draw():
    return {
        "random": random.random(),
        "numpy": float(numpy.random.random()),
        "numpy generator": float(numpy.random.default_rng().random()),
        "secrets": secrets.token_hex(),
        "urandom": os.urandom(16).hex(),
        "uuid1": str(uuid.uuid1()),
        "uuid4": str(uuid.uuid4()),
        "openssl": ssl.RAND_bytes(16).hex(),
        "temporary": os.path.basename(tempfile.mkdtemp()),
        "node": uuid.getnode(),
    }
print(json.dumps(draw()))
"""


@pytest.fixture(scope="module")
def copies():
    """Sandboxes whose default kernels are copies of one: no two that were started apart have
    the same seed for hashes of text."""
    with ThreadPoolExecutor(COUNT) as pool:
        boxes = list(pool.map(lambda _: Sandbox.create(timeout=300), range(COUNT)))
    try:
        seeds = {box.run_code("hash('a probe')").text for box in boxes}
        if len(seeds) > 1:
            pytest.skip("this machine restores no ready states")
        yield boxes
    finally:
        for box in boxes:
            box.kill()


def printed(box, code, **options):
    execution = box.run_code(code, **options)
    assert execution.error is None, execution.error
    return "".join(execution.logs.stdout)


def all_differ(facts):
    """Each fact is another one in each sandbox."""
    same = {name for name in facts[0] if len({str(each[name]) for each in facts}) < len(facts)}
    assert not same, facts


def test_nothing_random_is_the_same(copies):
    all_differ([json.loads(printed(box, DRAWN)) for box in copies])


def test_new_kernels_are_seeded_apart(copies):
    contexts = [box.create_code_context() for box in copies]
    code = "print(hash('a probe'), id(object()))"
    facts = [printed(box, code, context=made) for box, made in zip(copies, contexts)]
    assert len({fact.split()[0] for fact in facts}) == len(copies)
    all_differ([{"context": made.id} for made in contexts])


def test_each_knows_itself_and_no_other(copies):
    facts = """
import json, os, subprocess
run = lambda text: subprocess.run(text, shell=True, capture_output=True, text=True).stdout.strip()
print(json.dumps({
    "id": os.environ["E2B_SANDBOX_ID"],
    "file": open("/run/e2b/.E2B_SANDBOX_ID").read(),
    "address": run("hostname -I"),
}))
"""
    told = [json.loads(printed(box, facts)) for box in copies]
    all_differ(told)
    for box, each in zip(copies, told):
        assert each["id"] == each["file"] == box.sandbox_id
    all_differ([{"token": box._envd_access_token} for box in copies])


def test_no_process_knows_an_id_that_opens_anything(copies, api):
    """An id is what it takes to reach a sandbox's ports."""
    show = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a ^E2B_SANDBOX_ID="
    for box in copies:
        listed = box.commands.run(show, user="root").stdout
        others = set(re.findall(r"=(\w+)$", listed, re.MULTILINE)) - {box.sandbox_id}
        for other in others:
            assert api.get(f"/sandboxes/{other}").status_code == 404
            headers = {"e2b-sandbox-id": other, "e2b-sandbox-port": "49999"}
            with env.client(env.SANDBOX_URL, headers=headers) as client:
                assert client.get("/health").status_code == 502


def test_keys_of_agents_differ(copies):
    """The key by which the host speaks to the agent is in the agent's memory, which root of
    the sandbox can read."""
    search = r"""
import re
found = set()
for line in open("/proc/1/maps"):
    match = re.match(r"(\w+)-(\w+) rw", line)
    if match:
        start, end = (int(text, 16) for text in match.groups())
        with open("/proc/1/mem", "rb") as memory:
            memory.seek(start)
            try:
                content = memory.read(end - start)
            except OSError:
                continue
        found |= set(re.findall(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", content))
print(*(each.decode() for each in found))
"""
    keys = []
    for box in copies:
        box.files.write("/tmp/search.py", search)
        found = box.commands.run("python3 /tmp/search.py", user="root").stdout.split()
        keys.append(set(found) - {box._envd_access_token})
    assert all(keys)
    # What none has of its own would open all.
    assert all(own - set.union(*keys[:at], *keys[at + 1 :]) for at, own in enumerate(keys))


def test_nobody_sees_what_another_did(copies):
    first, *others = copies
    mark = "mark-of-the-first"
    first.run_code(f"mark = {mark!r}", envs={"MARK": mark})
    first.commands.run(f"exec -a {mark} sleep 600", background=True)
    assert first.commands.run(f"pgrep -fx '{mark} 600'").stdout
    first.files.write("/home/user/mark", mark)
    first.files.write("/tmp/mark", mark)
    look = """
import os, subprocess
here = [path for path in ("/home/user/mark", "/tmp/mark") if os.path.exists(path)]
find = ["pgrep", "-fx", "mark-of-the-first 600"]
running = subprocess.run(find, capture_output=True, text=True).stdout
said = any("mark-of" + "-the-first" in cell for cell in In[:-1])
print(here, "mark" in globals(), "MARK" in os.environ, running, said)
"""
    for box in others:
        assert printed(box, look) == "[] False False  False\n"


def test_kernels_are_reached_from_their_own_sandbox_only(copies):
    """The key of the first kernel is the same in all: it opens local sockets in a directory
    of each sandbox's own. Later kernels have keys of their own."""
    show = "for file in /run/warren-interpreter/*/connection.json; do cat $file; echo; done"
    keys = []
    for box in copies:
        box.create_code_context()
        listed = box.commands.run(show, user="root").stdout
        connections = [json.loads(line) for line in listed.splitlines()]
        for connection in connections:
            assert connection["transport"] == "ipc"
            assert connection["ip"].startswith("/run/warren-interpreter/")
        keys.append([connection["key"] for connection in connections])
    shared = set.intersection(*map(set, keys))
    own = [key for each in keys for key in each if key not in shared]
    assert len(shared) == 1 and len(own) >= len(copies) and len(own) == len(set(own))


def test_descriptors_lead_nowhere_else(copies):
    """Every open file is a pipe, a socket or a kernel's object of the sandbox itself, or the
    agent's log."""
    code = """
import os
for fd in os.listdir("/proc/self/fd"):
    link = f"/proc/self/fd/{fd}"
    # The one that listed them is closed by now.
    if os.path.lexists(link):
        print(os.readlink(link))
"""
    root = "for fd in /proc/[0-9]*/fd/*; do readlink $fd; done 2>/dev/null; true"
    own = r"(pipe|socket):\[\d+\]|anon_inode:.*|/proc/\d+/fd"
    allowed = re.compile(own + r"|/dev/null|/dev/pts/.*|/log/envd\.jsonl")
    inodes = []
    for box in copies:
        links = printed(box, code) + box.commands.run(root, user="root").stdout
        links = links.splitlines()
        odd = [link for link in links if not allowed.fullmatch(link)]
        assert not odd
        inodes.append({link for link in links if link.startswith(("pipe:", "socket:"))})
    # No end of a pipe or socket of one is in another.
    seen = [inode for own in inodes for inode in own]
    assert len(seen) == len(set(seen))
