"""The sketches of a cluster's nodes in Redis: counting, reading, and rebuilding in a shadow.

The sketch of a node is one value, header and registers, at ``{namespace}:sketch:{node_id}``. During a rebuild the node
has a second sketch, the shadow, at ``{namespace}:shadow:{node_id}``. Redis holds hints only: a sketch that is missing,
damaged or of another cluster reads as unknown.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from sketches import scripts
from sketches.exceptions import ShadowLost, SketchError, StoreUnavailable
from sketches.hashing import hash_chunks, registers_of
from sketches.lcrs import LCRS
from sketches.wire import BUILD_SIZE, Header, decode, decode_header, encode_header, lineage, seed_check

BYTES_PER_LOOK = 512
"""A script reads this many bytes in one piece in the time in which it reads one single register (measured)."""

FILL_BATCH = 4096
"""One run of the script FILL counts this many chunks into a shadow, and holds up all other clients for some 10 ms."""

_NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})
_NO_BUILDS: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True)
class Lookup:
    """The registers of some chunks on some nodes, at one instant.

    Attributes:
        counts: registers, uint8 of shape ``[nodes, chunks]`` in the order of the arguments; 0 if the sketch is missing
            or damaged.
        headers: node id → header; None where the sketch is missing or damaged.
        run_id: run id of the server that answered, 40 hexadecimal digits.
    """

    counts: NDArray[np.uint8]
    headers: dict[str, Header | None]
    run_id: str


@dataclass(frozen=True)
class Snapshot:
    """Whole sketches at one instant.

    Attributes:
        sketches: node id → sketch; missing and damaged sketches are left out.
        headers: node id → header; None where the sketch is missing or damaged.
        run_id: run id of the server that answered, 40 hexadecimal digits.
    """

    sketches: dict[str, LCRS]
    headers: dict[str, Header | None]
    run_id: str

    def registers(self, node_ids: Sequence[str], chunk_hashes: Sequence[str]) -> list[list[int]]:
        """Return the registers of chunks on nodes at that instant: a row for each chunk; 0 if a node has no sketch.

        The rows are lists of Python numbers: most readers ask for one or two chunks, and to make a NumPy array for so
        few numbers takes longer than to fill it.
        """
        asked = [self.sketches.get(node_id) for node_id in node_ids]
        sizes = {sketch.n_prime: sketch.seed for sketch in asked if sketch}
        places = {n_prime: registers_of(hash_chunks(chunk_hashes, seed), n_prime) for n_prime, seed in sizes.items()}
        columns = [(sketch.registers.item, places[sketch.n_prime].tolist()) if sketch else None for sketch in asked]
        return [[column[0](column[1][row]) if column else 0 for column in columns] for row in range(len(chunk_hashes))]


def trusted(header: Header | None, epoch: int, run_id: str) -> bool:
    """Tell whether a zero register proves absence: no count can have been lost since the sketch was built.

    Args:
        header: the header of the sketch; None if there is no sketch.
        epoch: the present epoch of the node's sketch, which is raised whenever a writer could not count.
        run_id: the run id of the server, read together with the header. A restarted server has another run id, and may
            have lost its last writes.
    """
    return header is not None and header.epoch == epoch and header.run_id.hex() == run_id


class SketchStore:
    """The sketches of one cluster in one Redis (7.0 or later, or Valkey).

    Every method raises `StoreUnavailable` if Redis does not answer or refuses.

    Args:
        client: a Redis client that answers bytes (``decode_responses=False``).
        namespace: the beginning of every key.
        seed: the cluster's seed, an unsigned 32-bit integer.
        base_n_prime: N' before any growth, in registers; each sketch has this size times a power of two.
        tau: the level at which the registers of new sketches saturate, 1 to 255.

    Raises:
        ValueError: ``base_n_prime`` is out of range.
    """

    def __init__(self, client: redis.Redis, namespace: str, *, seed: int, base_n_prime: int, tau: int) -> None:
        if not 1 <= base_n_prime < 2**32:
            raise ValueError(f"a sketch has 1 to 2**32 - 1 registers, not {base_n_prime}")
        self._client = client
        self._namespace = namespace
        self._seed = seed
        self._base_n_prime = base_n_prime
        self._tau = tau
        self._lineage = lineage(base_n_prime, seed)
        # The modulus is the largest size whose remainders fit 32 bits. Every size that a header can have divides the
        # modulus.
        self._modulus = base_n_prime << ((2**32 // base_n_prime).bit_length() - 1)

    def update(
        self,
        add: Mapping[str, Sequence[str]],
        remove: Mapping[str, Sequence[str]] = _NOTHING,
        ensure: Mapping[str, Sequence[str]] = _NOTHING,
        *,
        builds: Mapping[str, bytes] = _NO_BUILDS,
    ) -> set[str]:
        """Count, un-count and ensure chunks, by node id; everything is one atomic step and one round trip.

        An added chunk counts in the sketch and in an open shadow. A removed chunk un-counts in the sketch only, because
        the listing that fills the shadow may not have seen the chunk. An ensured chunk raises its register to 1 if that
        is zero, in the sketch and in the shadow. Registers saturate and stick at the tau of their header. A missing
        sketch is never created.

        Args:
            add: node id → chunks about to be written.
            remove: node id → chunks whose removal is durable.
            ensure: node id → chunks found on the volume.
            builds: node id → ``header.build`` of the sketch as read *before* the removal, for nodes in ``remove``. A
                sketch of another build is not un-counted. Without this build, a chunk could be removed before a
                rebuild lists the volume, and un-counted after the swap: that would take away another chunk's count.

        Returns:
            The ids of the nodes for which a count was lost: the node has neither sketch nor shadow, or one of them is
            damaged or of another base size or seed. Before anything is written to a node whose count was lost, every
            sketch that was built for the node must lose its trust.

        Raises:
            StoreUnavailable: the update may or may not have been carried out, but it is never sent twice.
        """
        node_ids = sorted({*add, *remove, *ensure})
        if not node_ids:
            return set()
        keys = [key for node_id in node_ids for key in (self._sketch(node_id), self._shadow(node_id))]
        args = [self._lineage]
        for node_id in node_ids:
            args.append(builds.get(node_id, b""))
            args.extend(self._pack(part.get(node_id, ())) for part in (remove, add, ensure))
        with _unavailable():
            missing = self._run_once(scripts.UPDATE, keys, args)
        return {node_ids[position] for position in missing}

    def lookup(self, node_ids: Sequence[str], chunk_hashes: Sequence[str]) -> Lookup:
        """Read the registers of chunks on nodes, in one round trip; for many chunks, whole sketches are read."""
        whole = len(chunk_hashes) * BYTES_PER_LOOK
        hashes64 = hash_chunks(chunk_hashes, self._seed)
        with _unavailable():
            keys = [self._sketch(node_id) for node_id in node_ids]
            answer = self._run(scripts.READ, keys, [self._lineage, self._packed(hashes64), whole])
        counts = np.zeros((len(node_ids), len(chunk_hashes)), np.uint8)
        headers: dict[str, Header | None] = {}
        for row, node_id in enumerate(node_ids):
            raw_header, raw_registers = answer[2 * row + 1 : 2 * row + 3]
            headers[node_id] = None
            try:
                header = decode_header(raw_header, seed=self._seed)
            except SketchError:
                continue
            registers = np.frombuffer(raw_registers, np.uint8)
            if registers.size and registers.max() > header.tau:
                continue
            headers[node_id] = header
            counts[row] = registers[registers_of(hashes64, header.n_prime)] if header.n_prime <= whole else registers
        return Lookup(counts, headers, answer[0].decode())

    def snapshot(self, node_ids: Sequence[str]) -> Snapshot:
        """Read whole sketches, in one round trip."""
        with _unavailable(), self._client.pipeline(transaction=True) as pipe:
            pipe.info("server")
            for node_id in node_ids:
                pipe.get(self._sketch(node_id))
            info, *values = pipe.execute()
        sketches: dict[str, LCRS] = {}
        headers: dict[str, Header | None] = dict.fromkeys(node_ids)
        for node_id, value in zip(node_ids, values, strict=True):
            if whole := self._whole(value):
                headers[node_id], sketches[node_id] = whole
        return Snapshot(sketches, headers, _run_id(info))

    def side_by_side(self, node_id: str, build: bytes) -> tuple[LCRS | None, LCRS]:
        """Read a node's sketch (None if missing or damaged) and the shadow that will replace it, at one instant.

        Raises:
            ShadowLost: the shadow is missing, damaged or of another build.
        """
        with _unavailable():
            values: Any = self._client.mget(self._sketch(node_id), self._shadow(node_id))
        in_use, shadow = (self._whole(value) for value in values)
        if shadow is None or shadow[0].build != build:
            raise ShadowLost(f"the shadow of {node_id} is missing, damaged or of another build")
        return (in_use[1] if in_use else None), shadow[1]

    def open_shadow(self, node_id: str, epoch: int, n_prime: int) -> bytes:
        """Begin to rebuild a node's sketch: create an empty shadow, which replaces an older shadow.

        From now on `update` adds to the sketch and to the shadow. List the node's volume only after all writes that
        were counted before this call have ended.

        Args:
            node_id: the node.
            epoch: the present epoch of the node's sketch.
            n_prime: size of the new sketch in registers.

        Returns:
            The id of this build.

        Raises:
            IncompatibleSketches: ``n_prime`` is not ``base_n_prime`` times a power of two.
        """
        build = secrets.token_bytes(BUILD_SIZE)
        with _unavailable():
            # If the server restarts after this line, the shadow has the former run id, and the swap refuses it.
            run_id = bytes.fromhex(_run_id(self._client.info("server")))
            check = seed_check(self._seed)
            header = encode_header(Header(self._base_n_prime, check, self._tau, n_prime, epoch, build, run_id))
            self._run_once(scripts.OPEN, [self._shadow(node_id)], [header, n_prime])
        return build

    def fill_shadow(self, node_id: str, build: bytes, chunk_hashes: Sequence[str]) -> None:
        """Count the chunks that the listing of the node found, in the shadow.

        Raises:
            ShadowLost: the shadow is missing or of another build.
        """
        for start in range(0, max(len(chunk_hashes), 1), FILL_BATCH):
            hashes = self._pack(chunk_hashes[start : start + FILL_BATCH])
            with _unavailable():
                filled = self._run(scripts.FILL, [self._shadow(node_id)], [self._lineage, build, hashes])
            if not filled:
                raise ShadowLost(f"the shadow of {node_id} is missing or of another build")

    def swap_shadow(self, node_id: str, build: bytes) -> None:
        """Put the shadow in the place of the sketch, at one instant.

        Raises:
            ShadowLost: the shadow is missing, not whole, of another build, or of a server that has restarted.
        """
        with _unavailable():
            keys = [self._shadow(node_id), self._sketch(node_id)]
            swapped = self._run(scripts.SWAP, keys, [self._lineage, build])
        if not swapped:
            raise ShadowLost(f"the shadow of {node_id} is missing, of another build or of a restarted server")

    def discard_shadow(self, node_id: str, build: bytes) -> None:
        """Drop the shadow if it is of this build."""
        with _unavailable():
            self._run(scripts.DISCARD, [self._shadow(node_id)], [self._lineage, build])

    def forget(self, node_id: str) -> None:
        """Remove the sketch and the shadow of a node that has left the cluster.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        with _unavailable():
            self._client.delete(self._sketch(node_id), self._shadow(node_id))

    def _sketch(self, node_id: str) -> str:
        return f"{self._namespace}:sketch:{node_id}"

    def _shadow(self, node_id: str) -> str:
        return f"{self._namespace}:shadow:{node_id}"

    def _whole(self, value: bytes | None) -> tuple[Header, LCRS] | None:
        """Decode a stored value; None if it is missing, damaged or of another cluster."""
        if value is None or not value.startswith(self._lineage):
            return None
        try:
            header, registers = decode(value, seed=self._seed)
        except SketchError:
            return None
        return header, LCRS.from_registers(registers, header.tau, self._seed)

    def _pack(self, chunk_hashes: Sequence[str]) -> bytes:
        return self._packed(hash_chunks(chunk_hashes, self._seed))

    def _packed(self, hashes64: NDArray[np.uint64]) -> bytes:
        return registers_of(hashes64, self._modulus).astype("<u4").tobytes()

    def _run(self, script: str, keys: Sequence[str], args: Sequence[bytes | int]) -> Any:
        """Run a script that may run twice: the client may retry it."""
        try:
            return self._client.evalsha(_sha(script), len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return self._client.eval(script, len(keys), *keys, *args)

    def _run_once(self, script: str, keys: Sequence[str], args: Sequence[bytes | int]) -> Any:
        """Run a script at most once, without the client's retries.

        If an answer was lost, a retry would repeat a script that has run already. A removal that runs twice un-counts
        another chunk. An opening that runs twice empties a shadow that has already counted.
        """
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            try:
                connection.send_command("EVALSHA", _sha(script), len(keys), *keys, *args)  # type: ignore[no-untyped-call]
                return connection.read_response()
            except redis.exceptions.NoScriptError:
                connection.send_command("EVAL", script, len(keys), *keys, *args)  # type: ignore[no-untyped-call]
                return connection.read_response()
        finally:
            pool.release(connection)


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn an error of Redis into `StoreUnavailable`."""
    try:
        yield
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis: {error}") from error


def _run_id(info: Mapping[str, Any]) -> str:
    """Return the server's run id, which the client reads as a number if it consists of decimal digits."""
    return str(info["run_id"]).zfill(40)


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
