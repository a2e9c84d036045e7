"""Generates a client from the server's description of its API with a public generator, and calls the server with it.

    pip install openapi-python-client==0.29.1 ruff
    zeg serve --model mini --port 8000 &
    python3 reference/serve_client.py --address http://127.0.0.1:8000

Segments an image by a form and by JSON, encodes it once and asks twice, and lists models and class lists. Prints "ok".
"""

import argparse
import base64
import importlib
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from serve_load import png  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with urllib.request.urlopen(options.address + "/openapi.json") as answer:
            (folder / "openapi.json").write_bytes(answer.read())
        generated = subprocess.run(
            [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--output-path", "client",
             "--meta", "none", "--fail-on-warning"],
            cwd=folder, capture_output=True, text=True,
        )
        print(generated.stdout, generated.stderr)
        generated.check_returncode()
        # Version 0.29.1 uses a name without importing it where a call takes JSON or a form.
        for module in (folder / "client" / "api").rglob("*.py"):
            text = module.read_text()
            module.write_text(text.replace("from ...types import ", "from ...types import Unset, "))
        sys.path.insert(0, str(folder))
        client = importlib.import_module("client").Client(base_url=options.address)
        models = importlib.import_module("client.models")
        types = importlib.import_module("client.types")

        def call(module, **arguments):
            answer = importlib.import_module("client.api." + module).sync_detailed(client=client, **arguments)
            assert answer.status_code in (200, 201, 204), (answer.status_code, answer.content[:500])
            return answer.parsed

        image = png(160, 120, 1)

        def file():
            return types.File(payload=io.BytesIO(image), file_name="a.png", mime_type="image/png")

        form = models.SegmentForm(image=file(), classes="red, blue", output="rle,labels")
        found = call("segment.segment", body=form)
        assert (found.width, found.height) == (160, 120), found
        assert found.outputs["labels"].media_type == "image/png"
        assert found.annotations.rle[0].class_ in ("red", "blue")

        red, blue = models.ClassObject(name="red"), models.ClassObject(name="blue", synonyms=["plain blue"])
        for classes in ([red, blue], ["red", blue], "red, plain blue"):
            body = models.SegmentBody(image=base64.b64encode(image).decode(), classes=classes, output=["runs"])
            found = call("segment.segment", body=body)
            assert sum(found.runs.runs[1::2]) == 160 * 120

        tag = "encode_once_ask_many_times."
        encoded = call(tag + "create_encoding", body=models.EncodingForm(image=file()))
        for classes in ([red, blue], [blue]):
            asked = models.AskBody(classes=classes, background="green", output=["regions"])
            found = call(tag + "segment_encoding", id=encoded.id, body=asked)
            assert found.regions, found
        assert call(tag + "get_encoding", id=encoded.id).width == 160
        call(tag + "delete_encoding", id=encoded.id)

        facts = "what_can_be_asked_for."
        assert call(facts + "get_models").models[0].default
        names = [one.name for one in call(facts + "get_class_lists").lists]
        assert len(call(facts + "get_class_list", name=names[0]).classes) == 20
        assert call("how_the_server_is.get_status").ready
        problem = importlib.import_module("client.api." + tag + "get_encoding").sync_detailed("none", client=client)
        assert problem.status_code == 404 and json.loads(problem.content)["code"] == "unknown-encoding"
    print("ok")


if __name__ == "__main__":
    main()
