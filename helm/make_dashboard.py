"""Writes the Grafana dashboards of the chart: one for conversations, one for stages.

Run without arguments after a change; the tests fail when the files are not current. Panels ask for
metrics of parley_core.telemetry and of the gateway, as the chart's ServiceMonitor labels them.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "parley" / "dashboards"
WHERE = 'namespace="$namespace"'
GATEWAY = f'{WHERE},job="gateway"'
FAILED = 'code!~"OK|CANCELLED"'
SERVICES = "asr-context|chat-llm|gateway|tokenizer|tts|vocoder"
# As the chart's rule on errors counts: what a pod refuses while it comes or goes is asked of
# another.
FAULT = (
    'code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED",reason!~"DRAINING|WARMING_UP"'
)


def quantiles(metric: str, where: str, by: str = "") -> list[tuple[str, str]]:
    """Median and tail of a histogram."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by.split(', ')[0]}}}}} " if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{where}}}[5m])))",
            f"{legend}p{round(q * 100)}",
        )
        for q in (0.5, 0.95)
    ]


CONVERSATIONS = [
    (
        "Conversations held",
        "short",
        [(f"sum by (pod) (parley_gateway_streams{{{GATEWAY}}})", "{{pod}}")],
    ),
    ("Gap: end of speech to first audio", "s", quantiles("parley_gap_seconds", GATEWAY, "kind")),
    (
        "Time to first audio, end-of-turn decision aside",
        "s",
        quantiles("parley_time_to_first_audio_seconds", GATEWAY, "kind"),
    ),
    (
        "Latency of stages as the gateway sees them, to the first output",
        "s",
        quantiles("parley_stage_latency_seconds", f'{GATEWAY},phase="first"', "stage"),
    ),
    (
        "Calls by code",
        "reqps",
        [(f"sum by (code) (rate(parley_requests_total{{{GATEWAY}}}[5m]))", "{{code}}")],
    ),
    (
        "Calls that failed, by reason",
        "reqps",
        [
            (
                f'sum by (reason) (rate(parley_requests_total{{{GATEWAY},code!="OK"}}[5m]))',
                "{{reason}}",
            )
        ],
    ),
    (
        "Share of calls that fail by our fault",
        "percentunit",
        [
            (
                f"sum(rate(parley_requests_total{{{GATEWAY},{FAULT}}}[5m]))"
                f" / sum(rate(parley_requests_total{{{GATEWAY}}}[5m]))",
                "errors",
            )
        ],
    ),
    (
        "Pieces of replies dropped because they no longer count",
        "short",
        [(f"sum(rate(parley_gateway_stale_dropped_total{{{GATEWAY}}}[5m]))", "a second")],
    ),
]

STAGES = [
    (
        "Requests inside the engines",
        "short",
        [(f"sum by (engine) (parley_engine_requests_running{{{WHERE}}})", "{{engine}}")],
    ),
    (
        "Requests waiting for an engine",
        "short",
        [
            (
                f"max by (engine, pod) (parley_engine_requests_queued{{{WHERE}}})",
                "{{engine}} {{pod}}",
            )
        ],
    ),
    (
        "Calls being served",
        "short",
        [(f"sum by (job) (parley_requests_running{{{WHERE}}})", "{{job}}")],
    ),
    (
        "First response",
        "s",
        quantiles("parley_first_response_seconds", WHERE, "job"),
    ),
    (
        "Length of calls",
        "s",
        quantiles("parley_request_duration_seconds", WHERE, "job"),
    ),
    (
        "Failures by service and code",
        "reqps",
        [
            (
                f'sum by (job, code) (rate(parley_requests_total{{{WHERE},{FAILED}}}[5m]))',
                "{{job}} {{code}}",
            )
        ],
    ),
    ("Pods up", "short", [(f'sum by (job) (up{{{WHERE},job=~"{SERVICES}"}})', "{{job}}")]),
]  # fmt: skip


def dashboard(
    uid: str, title: str, panels: list[tuple[str, str, list[tuple[str, str]]]]
) -> dict[str, Any]:
    """A dashboard of time series, two in a row."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["parley"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "type": "query",
                    "datasource": source,
                    "query": "label_values(parley_requests_running, namespace)",
                    "refresh": 2,
                },
            ]
        },
        "panels": [
            {
                "id": index + 1,
                "title": name,
                "type": "timeseries",
                "datasource": source,
                "gridPos": {"x": index % 2 * 12, "y": index // 2 * 8, "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + row), "expr": expr, "legendFormat": legend}
                    for row, (expr, legend) in enumerate(targets)
                ],
            }
            for index, (name, unit, targets) in enumerate(panels)
        ],
    }


def build() -> dict[str, str]:
    """File name to content."""
    boards = {
        "conversations.json": dashboard(
            "parley-conversations", "Parley: conversations", CONVERSATIONS
        ),
        "stages.json": dashboard("parley-stages", "Parley: stages", STAGES),
    }
    return {name: json.dumps(each, indent=1) + "\n" for name, each in boards.items()}


def main() -> None:
    """Writes the files."""
    for name, text in build().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
