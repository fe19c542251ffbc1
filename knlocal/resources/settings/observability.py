"""config-observability of serving and eventing (knative.dev/serving/pkg/observability)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from knlocal.resources.gotemplate import Template, TemplateError
from knlocal.resources.settings.parsing import SettingsError, read, setting

REQUEST_LOG_TEMPLATE = (
    '{"httpRequest": {"requestMethod": "{{.Request.Method}}", '
    '"requestUrl": "{{js .Request.RequestURI}}", '
    '"requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, '
    '"responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", '
    '"remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", '
    '"referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", '
    '"protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}'
)

_PROTOCOLS = ("", "none", "grpc", "http/protobuf", "prometheus", "stdout")


@dataclass(frozen=True, slots=True)
class Observability:
    """Logging of requests and where logs are to be found."""

    logging_url_template: str = setting(
        "logging.revision-url-template",
        "",
        "URL of a revision's logs; ${REVISION_UID} is replaced.",
    )
    enable_var_log_collection: bool = setting(
        "logging.enable-var-log-collection", False, "Whether /var/log is collected too."
    )
    enable_request_log: bool = setting(
        "logging.enable-request-log", False, "Whether each request is logged by queue-proxy."
    )
    enable_probe_request_log: bool = setting(
        "logging.enable-probe-request-log", False, "Whether probes are logged too."
    )
    request_log_template: str = setting(
        "logging.request-log-template", REQUEST_LOG_TEMPLATE, "Go template of a request's log line."
    )
    tracing_protocol: str = setting("tracing-protocol", "none", "How traces are exported.")
    tracing_endpoint: str = setting("tracing-endpoint", "", "Where traces are exported to.")
    tracing_sampling_rate: float = setting(
        "tracing-sampling-rate", 0.0, "Share of requests that are traced, 0 to 1."
    )
    metrics_protocol: str = setting("metrics-protocol", "none", "How metrics are exported.")
    request_metrics_protocol: str = setting(
        "request-metrics-protocol", "none", "How request metrics are exported."
    )
    runtime_profiling: str = setting("runtime-profiling", "disabled", "Profiling endpoints.")

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Observability:
        found = read(cls, data)
        if found.request_log_template:
            try:
                Template(found.request_log_template, "requestLog")
            except TemplateError as error:
                raise SettingsError(str(error)) from None
        elif found.enable_request_log:
            raise SettingsError(
                "logging.request-log-template must not be empty "
                "when logging.enable-request-log is true"
            )
        for protocol in (
            found.metrics_protocol, found.request_metrics_protocol, found.tracing_protocol,
        ):  # fmt: skip
            if protocol not in _PROTOCOLS:
                raise SettingsError(f'unsupported protocol "{protocol}"')
        if not 0 <= found.tracing_sampling_rate <= 1:
            raise SettingsError(
                f"tracing-sampling-rate = {found.tracing_sampling_rate:g} must be in [0, 1]"
            )
        return found
