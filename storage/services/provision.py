"""Bring the cluster in line with the environment, only at boot (RACES 22); or add one node to a running cluster."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import count

import structlog
from django.db import transaction
from django.db.models import QuerySet

from storage.cluster import generations, topology
from storage.conf import VERSION, Configuration, configuration
from storage.exceptions import ConfigurationError, InvalidRequest, VolumeError
from storage.jobs import wakeups
from storage.models import Activity, Cluster, Content, Job, Node, nobody
from storage.models.locks import Lock, advisory_lock
from storage.tracking import counting
from storage.tracking.store import SketchError
from storage.volumes import addresses, open_volume

log = structlog.get_logger(__name__)


def provision(configuration: Configuration) -> None:
    """Make the cluster row and the nodes that the environment asks for, and record changes of the sketches' shape.

    The first start makes NUM_NODES nodes. A later start adds nodes only if NUM_NODES was raised since the start before:
    then it adds the missing nodes. Other operations also add nodes and retire them, so NUM_NODES need not be equal to
    the number of nodes.

    Raises:
        ConfigurationError: a node cannot be created, or the cluster has too few nodes for REPLICATION_FACTOR.
    """
    configuration.staging_dir.mkdir(parents=True, exist_ok=True)
    configuration.nodes_dir.mkdir(parents=True, exist_ok=True)
    with advisory_lock(Lock.PROVISIONING):
        nobody()
        cluster = _reconcile_cluster(configuration)
        for node in Node.objects.filter(state=Node.State.CREATING):
            try:
                _create_volume(cluster, node)
            except VolumeError as error:
                raise ConfigurationError(f"{node.node_id} cannot be created: {error}") from None
    topology.forget()
    log.info("store.provisioned", version=VERSION, nodes=Cluster.load().num_nodes)
    generations.recognise(topology.Topology.load())
    generations.begin(topology.Topology.load())


def plan(url: str = "", zone: str = "") -> Node:
    """The node that ``add`` would make. This function changes nothing.

    Raises:
        InvalidRequest: no volume can be made at ``url``, another node is there, or ``zone`` is too long.
    """
    node_id = _free_id()
    node = Node(node_id=node_id, url=url or addresses.relative(node_id, _kind(configuration())), zone=zone)
    longest = Node._meta.get_field("zone").max_length or 0
    if len(zone) > longest:
        raise InvalidRequest("the name of the zone is too long", {"zone": [f"It has at most {longest} characters."]})
    try:
        if url and not re.match(r"[a-z][a-z0-9+.-]*:/", url):
            raise ConfigurationError("an absolute URL is needed, such as pack:///srv/disk6")
        volume = open_volume(topology.absolute_url(node))
        volume.require_vacant(topology.identity_of(Cluster.load(), node))
    except (ConfigurationError, ValueError, VolumeError) as error:
        raise InvalidRequest(f"no node can be made at {node.url}: {error}", {"url": [str(error)]}) from None
    return node


def add(url: str = "", zone: str = "") -> Node:
    """Add a node to the running cluster. A rebalance then moves the new node's share of the copies to it.

    Args:
        url: the address of its volume, such as ``pack:///srv/disk6``; by default a directory next to the other nodes.
        zone: its zone; replicas go to distinct zones first.

    Raises:
        InvalidRequest: as for ``plan``, or the volume turns out not to work; nothing has changed.
    """
    with advisory_lock(Lock.PROVISIONING):
        node = plan(url, zone)
        node.save()
        try:
            _create_volume(Cluster.load(), node)
        except VolumeError as error:
            node.delete()
            raise InvalidRequest(f"no node can be made at {node.url}: {error}", {"url": [str(error)]}) from None
        Cluster.objects.update(num_nodes=_present().count())
        Activity.record(Activity.Action.ADD_NODE, node.node_id, detail=node.url[:255])
    topology.forget()
    wakeups.wake(Job.Queue.MAINTENANCE)
    return node


@transaction.atomic
def _reconcile_cluster(configuration: Configuration) -> Cluster:
    cluster, is_new = Cluster.objects.select_for_update().get_or_create(
        id=1,
        defaults={
            "base_n_prime": configuration.n_prime,
            "n_prime": configuration.n_prime,
            "tau": configuration.tau,
            "num_nodes": 0,
            "asked_nodes": 0,
        },
    )
    if is_new:
        log.info("cluster.created", cluster=str(cluster.uuid))
    if configuration.num_nodes > cluster.asked_nodes:
        _commit_nodes(configuration)
    cluster.asked_nodes = configuration.num_nodes
    cluster.num_nodes = _present().count()
    if configuration.replication_factor > cluster.num_nodes:
        raise ConfigurationError(
            f"REPLICATION_FACTOR={configuration.replication_factor}, but the cluster has {cluster.num_nodes} nodes; "
            "lower the one or add nodes"
        )
    if (configuration.n_prime, configuration.tau) != (cluster.base_n_prime, cluster.tau):
        # The sketches of the former shape no longer fit. The probe finds that sketches of another shape are not
        # trusted, and queues their rebuilds.
        log.info("cluster.sketches_reshaped", n_prime=configuration.n_prime, tau=configuration.tau)
        cluster.base_n_prime = cluster.n_prime = configuration.n_prime
        cluster.tau = configuration.tau
    cluster.save()
    return cluster


def _present() -> QuerySet[Node]:
    """The nodes that are not retired."""
    return Node.objects.exclude(state=Node.State.RETIRED)


def _commit_nodes(configuration: Configuration) -> None:
    """Insert the rows of new nodes until there are NUM_NODES nodes, before their volumes exist (RACES 20).

    A volume without a row would look like a volume of another cluster. A row without a volume does no harm:
    ``provision`` makes the volume.
    """
    kind = _kind(configuration)
    for _ in range(configuration.num_nodes - _present().count()):
        node_id = _free_id()
        Node.objects.create(node_id=node_id, url=addresses.relative(node_id, kind))


def _kind(configuration: Configuration) -> addresses.Kind:
    """The kind of the volumes of new nodes in the directory of the nodes."""
    kind = addresses.possible(configuration.node_volumes, configuration.nodes_dir)
    if kind != configuration.node_volumes:
        log.warning("packs.impossible", folder=str(configuration.nodes_dir))
    return kind


def _free_id() -> str:
    node_ids = set(Node.objects.values_list("node_id", flat=True))
    return next(node_id for i in count() if (node_id := f"node_{i:03d}") not in node_ids)


def _create_volume(cluster: Cluster, node: Node) -> None:
    identity = topology.identity_of(cluster, node)
    volume = open_volume(topology.absolute_url(node), identity)
    volume.create(identity)
    with suppress(VolumeError):  # The probe will read the space later.
        space = volume.space()
        node.file_system, node.file_system_bytes = space.device, space.total
    with suppress(SketchError):
        counting.begin(cluster, node)
    node.state = Node.State.ACTIVE
    node.online = True
    node.save(update_fields=["state", "online", "file_system", "file_system_bytes"])
    Cluster.bump_topology()
    if Content.objects.exists():
        # The new node holds no copies and the other nodes do, so copies have to move. A new job is queued even if a
        # rebalance is running, because the running job may not look for new nodes any more.
        Job.request(Job.Kind.REBALANCE_ALL, "cluster")
    log.info("node.created", node=node.node_id)
