"""A release's page: it checks the release and runs its ONNX model in the reader's
browser.

`static` holds the page itself, as browsers get it: no build step, nothing from
elsewhere. The runtime that it needs, onnxruntime-web, is pinned in
static/runtime.json.
"""
