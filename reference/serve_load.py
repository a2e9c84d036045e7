"""Loads `zeg serve` with many clients, and checks that each gets the answer for its own image.

    python3 reference/serve_load.py --zeg target/release/zeg --clients 100 --seconds 600

Every client has an image of its own, drawn or from a folder. `zeg segment` segments all images first; every answer of the server must be its
label map to the byte. A client that is told to wait (429) waits as long as Retry-After says. Needs Python 3.9 or newer and
nothing else. Prints one JSON object: rates, latencies, refusals, the server's memory, and how it ended.

At the end the server is asked to stop while it has work (SIGTERM), or with `--end kill` is killed (SIGKILL). It must leave no
file behind either way, and a second server must answer rightly at once.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import tempfile
import threading
import time
import zlib

COLOURS = [(220, 40, 40), (40, 60, 220), (40, 180, 60), (230, 210, 40), (150, 50, 170)]


def png(width, height, number):
    """An image of coloured blocks that follow from a number."""
    rng = random.Random(number)
    side = max(width // 8, 1)
    blocks = [[rng.choice(COLOURS) for _ in range(width // side + 1)] for _ in range(height // side + 1)]
    rows = bytearray()
    for y in range(height):
        rows.append(0)
        for x in range(width):
            red, green, blue = blocks[y // side][x // side]
            shade = (3 * x + 5 * y + number) % 17
            rows += bytes((min(red + shade, 255), green, max(blue - shade, 0)))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows), 6)) + chunk(b"IEND", b"")


def form(image, classes):
    """The body of a request for the label map of an image."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + image,
        b'--b\r\nContent-Disposition: form-data; name="classes"\r\n\r\n' + classes.encode(),
        b'--b\r\nContent-Disposition: form-data; name="output"\r\n\r\nlabels',
        b"--b--\r\n",
    ]
    return b"\r\n".join(parts)


class Server:
    """A running server."""

    def __init__(self, command, folder):
        started = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder / "tmp")}
        )
        self.place = self.process.stdout.readline().decode().strip().removeprefix("http://")
        self.seconds_to_start = time.monotonic() - started
        if not self.place:
            self.process.kill()
            raise SystemExit("the server did not start")

    def stop(self, how):
        """Sends a signal, and returns the exit code and the seconds until the end."""
        asked = time.monotonic()
        self.process.send_signal(how)
        code = self.process.wait(timeout=120)
        return code, time.monotonic() - asked


def memory(process):
    """Resident memory of a process in bytes."""
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


class Client(threading.Thread):
    """Asks for its image again and again until the end."""

    def __init__(self, place, body, wanted, end):
        super().__init__(daemon=True)
        self.place, self.body, self.wanted, self.end = place, body, wanted, end
        self.times, self.refused, self.faults = [], 0, []

    def run(self):
        connection = None
        while not self.end.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(self.place, timeout=150)
            started = time.monotonic()
            try:
                headers = {"Content-Type": "multipart/form-data; boundary=b"}
                connection.request("POST", "/v1/segment", self.body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if self.end.is_set():
                    return
                self.faults.append(f"connection: {error!r}")
                connection = None
                time.sleep(0.1)
                continue
            if answer.status == 200:
                self.times.append(time.monotonic() - started)
                if content != self.wanted:
                    self.faults.append("the answer is not that of the client's image")
            elif answer.status == 429:
                self.refused += 1
                wait = answer.getheader("Retry-After", "")
                if not wait.isdigit() or int(wait) < 1:
                    self.faults.append(f"429 with Retry-After {wait!r}")
                    wait = "1"
                # An idle connection is closed by the server after a while.
                connection.close()
                connection = None
                self.end.wait(int(wait))
            elif not self.end.is_set():
                self.faults.append(f"{answer.status}: {content[:300]!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zeg", required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--classes", default="red, blue, green, yellow, purple")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--images", help="folder of images; without it, coloured blocks are drawn")
    parser.add_argument("--size", type=int, default=512, help="side of the drawn images")
    parser.add_argument("--end", choices=["stop", "kill"], default="stop")
    parser.add_argument("--model-arguments", default="", help="more arguments of both commands, such as --text TABLE")
    parser.add_argument("--arguments", default="", help="more arguments of `zeg serve`, separated by spaces")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "images").mkdir()
        images = []
        # Some images may have the same labels, so there are more than clients.
        count = options.clients + options.clients // 4
        given = sorted(pathlib.Path(options.images).iterdir())[:count] if options.images else []
        for number in range(count):
            image = given[number].read_bytes() if given else png(options.size, options.size, number)
            images.append(image)
            (folder / "images" / f"{number:04}.{given[number].suffix[1:] if given else 'png'}").write_bytes(image)
        zeg = str(pathlib.Path(options.zeg).resolve())
        common = ["--model", options.model, *options.model_arguments.split()]
        started = time.monotonic()
        subprocess.run(
            [zeg, "segment", "images", *common, "--classes", options.classes, "--write", "labels", "-o", "out", "--quiet"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )
        segment_rate = count / (time.monotonic() - started)
        wanted = [(folder / "out" / f"{number:04}.png").read_bytes() for number in range(count)]
        distinct = [number for number in range(count) if wanted[number] not in wanted[:number]][: options.clients]
        assert len(distinct) == options.clients, "too many images have the same labels"
        images, wanted = [images[number] for number in distinct], [wanted[number] for number in distinct]

        (folder / "tmp").mkdir()
        command = [zeg, "serve", *common, "--port", "0", "--quiet", *options.arguments.split()]
        server = Server(command, folder)
        try:
            before = memory(server.process.pid)
            end = threading.Event()
            clients = [
                Client(server.place, form(image, options.classes), labels, end) for image, labels in zip(images, wanted)
            ]
            started = time.monotonic()
            for client in clients:
                client.start()
            samples = []
            while (seconds := time.monotonic() - started) < options.seconds:
                time.sleep(min(1, options.seconds - seconds))
                samples.append(memory(server.process.pid))
            answered = sum(len(client.times) for client in clients)
            end.set()
            code, stopped = server.stop(signal.SIGTERM if options.end == "stop" else signal.SIGKILL)
            for client in clients:
                client.join()
        finally:
            server.process.kill()
        files_left = len(list((folder / "tmp").iterdir()))

        again = Server(command, folder)
        try:
            restarted = time.monotonic()
            end = threading.Event()
            last = Client(again.place, form(images[0], options.classes), wanted[0], end)
            last.start()
            while not last.times and not last.faults and time.monotonic() - restarted < 60:
                time.sleep(0.01)
            first_answer = time.monotonic() - restarted
            end.set()
            last.join()
            again.stop(signal.SIGTERM)
        finally:
            again.process.kill()
        files_left += len(list((folder / "tmp").iterdir()))
        sound = last.times and not last.faults
        expected = 0 if options.end == "stop" else -signal.SIGKILL
        times = sorted(time for client in clients for time in client.times)
        faults = [fault for client in clients for fault in client.faults]

        def percentile(share):
            return round(times[min(int(share * len(times)), len(times) - 1)], 4) if times else None

        halves = samples[: len(samples) // 2], samples[len(samples) // 2 :]
        print(json.dumps({
            "model": options.model,
            "clients": options.clients,
            "images": options.images or f"{options.size}x{options.size}",
            "seconds": round(seconds, 1),
            "answered": answered,
            "images_a_second": round(answered / seconds, 2),
            "segment_images_a_second": round(segment_rate, 2),
            "fewest_of_a_client": min(len(client.times) for client in clients),
            "refused": sum(client.refused for client in clients),
            "faults": len(faults),
            "first_faults": faults[:5],
            "p50_s": percentile(0.5),
            "p99_s": percentile(0.99),
            "longest_s": percentile(1),
            "memory_before": before,
            "memory_most_first_half": max(halves[0], default=0),
            "memory_most_second_half": max(halves[1], default=0),
            "exit_code": code,
            "seconds_to_stop": round(stopped, 2),
            "files_left": files_left,
            "restart_seconds": round(again.seconds_to_start, 2),
            "restart_first_answer_s": round(first_answer, 2),
        }, indent=2))
        raise SystemExit(bool(faults or files_left) or code != expected or not times or not sound)


if __name__ == "__main__":
    main()
