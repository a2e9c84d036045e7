"""Writes small weight files that try to run code, claim more data than they contain, or make a reader work without end.

Packages   Python 3.11's standard library only
Golden     python reference/hostile_weights.py crates/zeg-weights/tests/golden/hostile

This script runs none of them: it assembles the pickles opcode by opcode, and the command in them is only `echo`. Never
load them with `torch.load(..., weights_only=False)`.

manifest.json lists for every file what it tries (`what`), what a reader must do (`verdict`) and, for files that would run
code, the callable that the error should name (`names`). The verdicts are "refused"; "bounded" if both a result and an
error are correct as long as time and memory stay small; and "read" for the controls, which are valid files.
"""

import argparse
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

MARK, STOP = b"(", b"."
COMMAND = "echo a pickle ran a command"


class Raw(bytes):
    """Opcodes, in contrast to values to be pickled."""


def put(value):
    """Returns the opcodes of protocol 2 that push the value."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return MARK + b"".join(map(put, value)) + b"t"
    if isinstance(value, dict):
        return b"}" + MARK + b"".join(put(key) + put(item) for key, item in value.items()) + b"u"
    raise TypeError(type(value))


def named(module, name):
    return Raw(f"c{module}\n{name}\n".encode())


def call(function, *arguments):
    return Raw(function + put(arguments) + b"R")


def tensor(shape, stride, offset=0, stored=4, key="0"):
    """Returns a float32 tensor that claims to be a view of storage `key` with `stored` elements."""
    storage = Raw(put(("storage", named("torch", "FloatStorage"), key, "cpu", stored)) + b"Q")
    hooks = call(named("collections", "OrderedDict"))
    return call(named("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, stride, False, hooks)


def pickled(value, protocol=2):
    return b"\x80" + bytes([protocol]) + put(value) + STOP


def checkpoint(value):
    """Returns a pickle whose `state_dict` has one entry."""
    return pickled({"state_dict": {"visual.proj": value}})


def zipped(body, data=b"\0" * 16, method=zipfile.ZIP_STORED, name="archive/data.pkl"):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for entry, content in ((name, body), ("archive/version", b"3\n"), ("archive/data/0", data)):
            place = zipfile.ZipInfo(entry)  # the date is always 1980, so that every run writes the same bytes
            place.compress_type = method if entry.endswith("data/0") else zipfile.ZIP_STORED
            archive.writestr(place, content)
    return target.getvalue()


def streamed(body, keys=("0",), numel=4, data=b"\0" * 16):
    """Returns torch.save's format before 1.6: magic number, protocol, system, object, storage keys, storages."""
    magic = 0x1950A86A20F9469CFC6C
    head = b"\x80\x02\x8a\x0a" + magic.to_bytes(10, "little") + STOP
    sizes = {"short": 2, "int": 4, "long": 4}
    system = pickled({"protocol_version": 1001, "little_endian": True, "type_sizes": sizes})
    listed = Raw(b"]" + MARK + b"".join(map(put, keys)) + b"e")
    return head + pickled(1001) + system + body + pickled(listed) + struct.pack("<q", numel) + data


def legacy_tensor():
    """Returns a tensor as `tensor` does, with the sixth part of a persistent id that the stream format has."""
    storage = Raw(put(("storage", named("torch", "FloatStorage"), "0", "cpu", 4, Raw(b"N"))) + b"Q")
    hooks = call(named("collections", "OrderedDict"))
    return call(named("torch._utils", "_rebuild_tensor_v2"), storage, 0, (4,), (1,), False, hooks)


def tarred(entries):
    """Returns the tar format of the first releases of torch, which zeg rejects entirely."""
    target = io.BytesIO()
    for name, content in entries.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        target.write(entry.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512))
    return target.getvalue() + b"\0" * 1024


def safetensors(header, data=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def code():
    """Yields files that try to run code: (file name, content, what it tries, the callable)."""
    system, evaluate = named("os", "system"), named("builtins", "eval")
    yield "reduce_os_system.pth", zipped(checkpoint(call(system, COMMAND))), "REDUCE of os.system", "os.system"
    posix = named("posix", "system")
    yield "reduce_posix_system.pth", zipped(checkpoint(call(posix, COMMAND))), "REDUCE of posix.system", "posix.system"
    yield "reduce_eval.pth", zipped(checkpoint(call(evaluate, "1+1"))), "REDUCE of builtins.eval", "builtins.eval"
    old = named("__builtin__", "eval")
    yield "reduce_eval_python2.pth", zipped(checkpoint(call(old, "1+1"))), "Python 2's name of eval", "eval"
    dynamic = Raw(b"\x8c\x08builtins\x8c\x04eval\x93")
    body = b"\x80\x04" + put({"state_dict": {"visual.proj": call(dynamic, "1+1")}}) + STOP
    yield "stack_global_eval.pth", zipped(body), "STACK_GLOBAL (protocol 4) of builtins.eval", "builtins.eval"
    framed = b"\x80\x04\x95" + struct.pack("<Q", len(body) - 2) + body[2:]
    yield "framed_eval.pth", zipped(framed), "the same inside a FRAME", "builtins.eval"
    inst = Raw(MARK + put(COMMAND) + b"ios\nsystem\n")
    yield "inst_os_system.pth", zipped(checkpoint(inst)), "INST of os.system", "os.system"
    obj = Raw(MARK + system + put(COMMAND) + b"o")
    yield "obj_os_system.pth", zipped(checkpoint(obj)), "OBJ of os.system", "os.system"
    new = Raw(named("subprocess", "Popen") + put((COMMAND,)) + b"\x81")
    yield "newobj_popen.pth", zipped(checkpoint(new)), "NEWOBJ of subprocess.Popen", "subprocess.Popen"
    extended = Raw(named("subprocess", "Popen") + put((COMMAND,)) + b"}\x92")
    yield "newobj_ex_popen.pth", zipped(checkpoint(extended)), "NEWOBJ_EX of subprocess.Popen", "subprocess.Popen"
    attribute = call(named("builtins", "getattr"), named("torch", "serialization"), "os")
    yield "reduce_getattr.pth", zipped(checkpoint(attribute)), "attribute of a module by getattr", "builtins.getattr"
    hidden = {"meta": {"CLASSES": call(system, COMMAND)}, "state_dict": {"visual.proj": tensor((4,), (1,))}}
    yield "meta_os_system.pth", zipped(pickled(hidden)), "os.system in `meta`, the weights are fine", "os.system"
    hooked = call(named("torch._utils", "_rebuild_parameter"), tensor((4,), (1,)), False, call(system, COMMAND))
    yield "hooks_os_system.pth", zipped(checkpoint(hooked)), "os.system as a parameter's hooks", "os.system"
    yield "legacy_os_system.pth", streamed(checkpoint(call(system, COMMAND))), "os.system, stream form", "os.system"


def claims():
    """Yields files that claim more than they contain: (file name, content, what it tries, verdict)."""
    huge = 2**40
    views = {
        "shape_2_40": (tensor((huge,), (1,)), "2^40 elements of a storage of 4"),
        "storage_2_40": (tensor((huge,), (1,), stored=huge), "a storage of 2^40 elements, 16 bytes in the file"),
        "shape_overflow": (tensor((2**32, 2**32), (2**32, 1)), "a product of sizes beyond 64 bits"),
        "shape_bignum": (tensor((2**70,), (1,)), "a size beyond 64 bits"),
        "expanded_2_40": (tensor((2**20, 2**20), (0, 0)), "2^40 elements, all the same one: strides 0"),
        "negative_stride": (tensor((4,), (-1,), offset=3), "stride -1"),
        "negative_size": (tensor((-4,), (1,)), "size -4"),
        "negative_offset": (tensor((4,), (1,), offset=-1), "offset -1"),
        "offset_beyond": (tensor((4,), (1,), offset=1), "the last element is one beyond the storage"),
        "offset_huge": (tensor((1,), (1,), offset=2**62), "offset 2^62, which overflows as bytes"),
        "stride_beyond": (tensor((2, 2), (3, 1)), "the strides lead one beyond the storage"),
        "stride_missing": (tensor((2, 2), (1,)), "two sizes, one stride"),
        "storage_missing": (tensor((4,), (1,), key="7"), "a storage that the archive lacks"),
        "storage_escapes": (tensor((4,), (1,), key="../data/0"), "a storage key with a path"),
        "storage_negative": (tensor((4,), (1,), stored=-4), "a storage of -4 elements"),
    }
    for name, (value, what) in views.items():
        yield f"{name}.pth", zipped(checkpoint(value)), what, "refused"
    bomb = zipped(checkpoint(tensor((2**22,), (1,), stored=2**22)), b"\0" * 2**24, zipfile.ZIP_DEFLATED)
    yield "zip_bomb.pth", bomb, "16 MiB of zeros, deflated to 16 kB", "bounded"
    lying = bytearray(zipped(checkpoint(tensor((2**28,), (1,), stored=2**28))))
    first, last = lying.index(b"archive/data/0"), lying.rindex(b"archive/data/0")
    for sizes_at in (first - 30 + 18, last - 46 + 20):  # in the entry's local header, and in the archive's directory
        lying[sizes_at : sizes_at + 8] = struct.pack("<II", 2**30, 2**30)
    yield "zip_size_lies.pth", bytes(lying), "a stored entry that says it has 2^30 bytes", "refused"
    yield "zip_no_pickle.pth", zipped(pickled({}), name="archive/other"), "an archive without data.pkl", "refused"
    yield "legacy_numel_2_40.pth", streamed(checkpoint(legacy_tensor()), numel=huge), "storage of 2^40", "refused"
    yield "legacy_numel_negative.pth", streamed(checkpoint(legacy_tensor()), numel=-4), "storage of -4", "refused"
    keys = ("0", "1", "2")
    yield "legacy_keys_missing.pth", streamed(checkpoint(legacy_tensor()), keys), "3 keys, 1 storage", "refused"
    system = pickled({"protocol_version": 1000, "little_endian": True})
    entries = {"sys_info": system, "pickle": checkpoint(call(named("os", "system"), COMMAND))}
    yield "tar_os_system.pth", tarred(entries), "os.system in the tar form, which is not read", "refused"

    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    yield "header_2_63.safetensors", struct.pack("<Q", 2**63) + b"{}", "a header of 2^63 bytes", "refused"
    yield "header_beyond.safetensors", struct.pack("<Q", 1000) + b"{}", "a header beyond the file", "refused"
    headers = {
        "offset_beyond": ({"a": entry | {"data_offsets": [16, 32]}}, "bytes beyond the file"),
        "offset_backwards": ({"a": entry | {"data_offsets": [16, 0]}}, "an end before the start"),
        "offset_2_63": ({"a": entry | {"data_offsets": [2**63, 2**63 + 16]}}, "offsets that overflow"),
        "shape_2_40": ({"a": entry | {"shape": [huge]}}, "2^40 elements in 16 bytes"),
        "shape_overflow": ({"a": entry | {"shape": [2**32, 2**32, 2**32]}}, "a product beyond 64 bits"),
        "shape_negative": ({"a": entry | {"shape": [-4]}}, "size -4"),
        "overlap": ({"a": entry, "b": entry}, "two tensors of the same bytes"),
        "dtype": ({"a": entry | {"dtype": "F33"}}, "a dtype that does not exist"),
    }
    for name, (header, what) in headers.items():
        yield f"{name}.safetensors", safetensors(header), what, "refused"
    nested = b'{"__metadata__":' + b"[" * 8000 + b"]" * 8000 + b"}"
    yield "nested.safetensors", safetensors(nested), "a header nested 8,000 deep", "refused"


def controls():
    """Yields the same constructions without the attack; a reader that rejects these rejects the others for a wrong reason."""
    fine = tensor((2, 2), (2, 1))
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    yield "control.pth", zipped(checkpoint(fine)), "zip form, nothing wrong", "read"
    yield "control_legacy.pth", streamed(checkpoint(legacy_tensor())), "stream form, nothing wrong", "read"
    yield "control.safetensors", safetensors({"visual.proj": entry}), "safetensors, nothing wrong", "read"


def endless():
    """Yields files that need much time or memory, or are broken: (file name, content, what it tries, verdict)."""
    deep = b"\x80\x02" + b"]" * 8000 + b"a" * 7999 + STOP
    yield "nested_lists.pth", zipped(deep), "lists nested 8,000 deep", "bounded"
    deep = b"\x80\x02" + (b"}" + put("")) * 2000 + b"N" + b"s" * 2000 + STOP
    yield "nested_dicts.pth", zipped(deep), "dicts nested 2,000 deep, which names would follow", "bounded"
    itself = Raw(b"}q\x01" + put("again") + b"h\x01s")
    yield "cycle.pth", zipped(pickled({"state_dict": itself})), "a state dict that holds itself", "bounded"
    doubled = b"\x80\x02}q\x00" + put("w") + tensor((4,), (1,)) + b"s"
    for level in range(40):
        doubled += b"}" + MARK + put("a") + b"h" + bytes([level]) + put("b") + b"h" + bytes([level])
        doubled += b"uq" + bytes([level + 1])
    yield "doubled_40.pth", zipped(doubled + STOP), "40 dicts, each holding the one before twice: 2^40 names", "bounded"
    popped = b"\x80\x02" + (b"N" + b"2" * 8000) + STOP
    yield "duplicates.pth", zipped(popped), "8,000 duplicates left on the stack", "refused"
    broken = {
        "long_string": (b"\x80\x02X\xff\xff\xff\xff", "a string of 2^32 - 1 bytes"),
        "long_bytes": (b"\x80\x05\x8e" + struct.pack("<Q", 2**63), "bytes of length 2^63"),
        "long_integer": (b"\x80\x02\x8b\xff\xff\xff\x7f", "an integer of 2^31 - 1 bytes"),
        "long_integer_negative": (b"\x80\x02\x8b\xff\xff\xff\xff", "an integer of -1 bytes"),
        "long_frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.", "a frame of 2^63 bytes"),
        "memo_2_32": (b"\x80\x02Nr\xff\xff\xff\xff.", "memo entry 2^32 - 1"),
        "memo_missing": (b"\x80\x02h\x07.", "a memo entry that nobody wrote"),
        "empty_pickle": (b"\x80\x02.", "nothing on the stack"),
        "mark_missing": (b"\x80\x02t.", "a tuple without its mark"),
        "reduce_missing": (b"\x80\x02R.", "REDUCE of nothing"),
        "reduce_string": (b"\x80\x02" + put("os.system") + put(("x",)) + b"R.", "REDUCE of a string"),
        "append_number": (b"\x80\x02K\x01K\x02a.", "appending to a number"),
        "dict_odd": (b"\x80\x02}(K\x01u.", "a key without its value"),
        "dict_list_key": (b"\x80\x02}]Ns.", "a list as a key"),
        "persistent_number": (b"\x80\x02K\x01Q.", "a persistent id that is a number"),
        "extension": (b"\x80\x02\x82\x01.", "an extension code"),
        "unknown_opcode": (b"\x80\x02\xff.", "an opcode that does not exist"),
        "protocol_9": (b"\x80\x09N.", "protocol 9"),
        "no_stop": (b"\x80\x02}", "no end"),
    }
    for name, (body, what) in broken.items():
        verdict = "bounded" if name in ("memo_2_32", "dict_list_key", "long_frame") else "refused"
        yield f"{name}.pth", zipped(body), what, verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for name, content, what, callable_name in code():
        (folder / name).write_bytes(content)
        manifest.append({"file": name, "what": what, "verdict": "refused", "names": callable_name})
    for source in (controls, claims, endless):
        for name, content, what, verdict in source():
            (folder / name).write_bytes(content)
            manifest.append({"file": name, "what": what, "verdict": verdict})
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    total = sum((folder / entry["file"]).stat().st_size for entry in manifest)
    print(f"{len(manifest)} files, {total:,} bytes")


if __name__ == "__main__":
    main()
