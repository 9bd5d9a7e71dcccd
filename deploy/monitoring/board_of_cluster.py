"""The board of the machines, from Ray's own metrics."""

from panels import Board, Panel, Query, Row

_AT = '{instance=~"$instance"}'


def _lines(title: str, what: str, unit: str, *queries: tuple[str, str], top: float | None = None) -> Panel:
    return Panel(title, what, tuple(Query(expr, legend) for expr, legend in queries), unit, top=top)


def _resource(name: str) -> Panel:
    chosen = f'ray_resources{{instance=~"$instance",Name="{name}"'
    return _lines(
        f"{name} that Ray gave out",
        "Used and all there is.",
        "short",
        (f'sum({chosen},State="USED"}})', "used"),
        (f"sum({chosen}}})", "all"),
    )


CLUSTER = Board(
    "cluster",
    "sdpo: Cluster",
    "What do the machines do, and what has Ray given out?",
    ("instance",),
    (
        Row(
            "Nodes",
            (
                _lines("Nodes", "That report.", "short", (f"count(ray_node_cpu_count{_AT})", "nodes")),
                _lines("CPU", "Of each node.", "percent", (f"ray_node_cpu_utilization{_AT}", "{{instance}}"), top=100),
                _lines(
                    "Memory",
                    "Share of each node.",
                    "percentunit",
                    (f"ray_node_mem_used_host{_AT} / ray_node_mem_total_host{_AT}", "{{instance}}"),
                    top=1,
                ),
                _lines(
                    "Disk",
                    "Share of each node that is in use.",
                    "percentunit",
                    (
                        f"ray_node_disk_usage{_AT} / (ray_node_disk_usage{_AT} + ray_node_disk_free{_AT})",
                        "{{instance}}",
                    ),
                    top=1,
                ),
                _lines(
                    "Network",
                    "Of each node.",
                    "Bps",
                    (f"ray_node_network_receive_speed{_AT}", "{{instance}} in"),
                    (f"ray_node_network_send_speed{_AT}", "{{instance}} out"),
                ),
            ),
        ),
        Row("Resources", tuple(_resource(name) for name in ("CPU", "GPU", "env_slot", "memory"))),
        Row(
            "Ray",
            (
                _lines("Actors", "By state.", "short", ("sum by (State) (ray_actors)", "{{State}}")),
                _lines(
                    "Placement groups",
                    "By state.",
                    "short",
                    ("sum by (State) (ray_gcs_placement_group_count)", "{{State}}"),
                ),
                _lines(
                    "Object store",
                    "Where the bytes are.",
                    "bytes",
                    (f"sum by (Location) (ray_object_store_memory{_AT})", "{{Location}}"),
                ),
                _lines(
                    "Memory by part of Ray",
                    "Actors of one class together.",
                    "bytes",
                    (f"sum by (Component) (ray_component_uss_bytes{_AT})", "{{Component}}"),
                ),
                _lines(
                    "Nodes by type",
                    "Of the autoscaler.",
                    "short",
                    ("sum by (NodeType) (autoscaler_active_nodes)", "{{NodeType}} up"),
                    ("sum by (NodeType) (autoscaler_pending_nodes)", "{{NodeType}} coming"),
                ),
            ),
        ),
        Row(
            "GPUs",
            (
                _lines(
                    "GPU",
                    "Of each.",
                    "percent",
                    (f"ray_node_gpus_utilization{_AT}", "{{instance}} {{GpuIndex}}"),
                    top=100,
                ),
                _lines(
                    "GPU memory",
                    "Share of each that is in use.",
                    "percentunit",
                    (
                        f"ray_node_gram_used{_AT} / (ray_node_gram_used{_AT} + ray_node_gram_available{_AT})",
                        "{{instance}} {{GpuIndex}}",
                    ),
                    top=1,
                ),
            ),
        ),
    ),
)
