"""A server of MCP as small as can be."""

import json
import os
import sys

NAME = sys.argv[1]
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in sys.argv[2:]]


def page(params):
    """Tools one by one, to have pages."""
    index = int(params.get("cursor", 0))
    answer = {"tools": TOOLS[index : index + 1]}
    if index + 1 < len(TOOLS):
        answer["nextCursor"] = str(index + 1)
    return answer


print("not a message", flush=True)
print("a word of", NAME, file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message:
        continue
    reply = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        capabilities = {"tools": {}, "resources": {}}
        reply["result"] = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": capabilities,
            "serverInfo": {"name": NAME, "version": "1"},
        }
    elif method == "tools/list":
        reply["result"] = page(params)
    elif method == "tools/call" and params["name"] == "exit":
        sys.exit(3)
    elif method == "tools/call":
        text = f"{NAME} ran {params['name']} with {os.environ.get('WORD')}"
        reply["result"] = {"content": [{"type": "text", "text": text}], "unknown": 1.50}
    elif method == "resources/list":
        reply["result"] = {"resources": [{"uri": f"x://{NAME}", "name": NAME}]}
    elif method == "resources/read":
        if params["uri"].startswith(f"x://{NAME}"):
            reply["result"] = {"contents": [{"uri": params["uri"], "text": NAME}]}
        else:
            reply["error"] = {"code": -32002, "message": "Resource not found"}
    else:
        reply["error"] = {"code": -32601, "message": f"no {method}"}
    print(json.dumps(reply), flush=True)
