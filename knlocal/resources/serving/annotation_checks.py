"""Checks of annotations: autoscaling, queue-proxy resources, durations.

Sources: knative.dev/serving pkg/apis/autoscaling/annotation_validation.go and
pkg/apis/serving/metadata_validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from knlocal.resources import duration, quantity
from knlocal.resources import field_errors as errors
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.serving import keys
from knlocal.resources.serving.keys import AnnotationKey
from knlocal.resources.settings import HPA, KPA, Autoscaler
from knlocal.resources.settings import autoscaler as bounds

MAX_INT32 = (1 << 31) - 1
Annotations = Mapping[str, str]

_SECONDS_ONLY = "must be specified with at most second precision"
_ALGORITHMS = ("linear", "weighted-exponential", "weightedExponential")


def autoscaling(annotations: Annotations, config: Autoscaler) -> FieldErrors:
    """What is wrong with autoscaling.knative.dev/… annotations; paths are the annotation keys."""
    if not any(key.startswith(keys.AUTOSCALING_GROUP) for key in annotations):
        return FieldErrors()
    found = FieldErrors()
    found.also(
        _class(annotations),
        _scale_bounds(annotations, config),
        _numbers(annotations),
        _window(annotations),
        _retention(annotations),
        _scale_down_delay(annotations),
        _metric(annotations),
        _algorithm(annotations),
        _initial_scale(annotations, config),
    )
    return found


def no_autoscaling(annotations: Annotations) -> FieldErrors:
    """Autoscaling annotations do nothing on a Service, Configuration or Route."""
    found = FieldErrors()
    for key in annotations:
        if key.startswith(keys.AUTOSCALING_GROUP):
            found.also(
                errors.invalid_key(
                    key,
                    errors.CURRENT_FIELD,
                    'autoscaling annotations must be put under "spec.template.metadata.annotations"'
                    " to work",
                )
            )
    return found


def rollout_duration(annotations: Annotations) -> FieldErrors:
    return _whole_seconds(annotations, keys.ROLLOUT_DURATION, "rollout-duration")


def progress_deadline(annotations: Annotations) -> FieldErrors:
    return _whole_seconds(annotations, keys.PROGRESS_DEADLINE, "progress-deadline")


def queue_proxy(annotations: Annotations) -> FieldErrors:
    """Resources of the queue-proxy container."""
    found = FieldErrors()
    if given := keys.QUEUE_RESOURCE_PERCENTAGE.find(annotations):
        key, value = given
        percent = _float(value)
        if percent is None:
            found.also(errors.invalid_value(value, errors.CURRENT_FIELD).via_key(key))
        elif not 0.1 <= percent <= 100:
            wrong = errors.out_of_bounds(f"{percent:g}", "0.1", "100", errors.CURRENT_FIELD)
            found.also(wrong.via_key(key))
        else:
            deprecated = errors.generic(
                "Queue proxy resource percentage annotation is deprecated. "
                "Please use the available annotations to explicitly set resource values"
            )
            found.also(deprecated.via_key(key).at_warning_level())
    for annotation in keys.QUEUE_RESOURCES.values():
        if given := annotation.find(annotations):
            key, value = given
            try:
                quantity.parse(value)
            except ValueError:
                found.also(errors.invalid_value(value, errors.CURRENT_FIELD).via_key(key))
    return found


# --- the autoscaling annotations one by one ------------------------------------------------------


def _class(annotations: Annotations) -> FieldErrors | None:
    given = keys.CLASS.find(annotations)
    if given is None:
        return None
    key, value = given
    if value.endswith(f".{keys.AUTOSCALING_GROUP}") and value not in (KPA, HPA):
        return errors.invalid_value(value, key)
    return None


def _scale_bounds(annotations: Annotations, config: Autoscaler) -> FieldErrors:
    found = FieldErrors()
    lowest = _count(annotations, keys.MIN_SCALE, found)
    highest = _count(annotations, keys.MAX_SCALE, found)
    if highest != 0 and highest < lowest:
        found.also(
            errors.generic(
                f"max-scale={highest} is less than min-scale={lowest}",
                keys.MAX_SCALE.key,
                keys.MIN_SCALE.key,
            )
        )
    limit = config.max_scale_limit
    if limit and (given := keys.MAX_SCALE.find(annotations)):
        if highest > limit:
            found.also(errors.out_of_bounds(highest, 1, limit, given[0]))
        if highest == 0:
            message = f"max-scale=0 (unlimited), must be less than {limit}"
            found.also(errors.generic(message, given[0]))
    if given := keys.ACTIVATION_SCALE.find(annotations):
        found.also(_activation_scale(*given, lowest, highest))
    return found


def _activation_scale(key: str, value: str, lowest: int, highest: int) -> FieldErrors | None:
    activation = _int(value)
    if activation is None:
        return errors.invalid_value(value, key)
    if lowest > activation:
        message = f"min-scale={lowest} is greater than activation-scale={activation}"
        return errors.generic(message, key)
    if highest != 0 and highest < activation:
        message = f"max-scale={highest} is less than activation-scale={activation}"
        return errors.generic(message, key)
    if activation < 2:
        return errors.generic(f"activation-scale={activation} must be greater than 1", key)
    return None


def _count(annotations: Annotations, annotation: AnnotationKey, found: FieldErrors) -> int:
    """A count of at least 0; 0 when it is missing or wrong (and then `found` says why)."""
    given = annotation.find(annotations)
    if given is None:
        return 0
    key, value = given
    number = _int(value)
    if number is None:
        found.also(errors.invalid_value(value, key))
        return 0
    if not 0 <= number <= MAX_INT32:
        found.also(errors.out_of_bounds(value, 0, MAX_INT32, key))
        return 0
    return number


def _numbers(annotations: Annotations) -> FieldErrors:
    found = FieldErrors()
    for annotation, low, high in (
        (
            keys.PANIC_WINDOW_PERCENTAGE,
            bounds.PANIC_WINDOW_PERCENTAGE_MIN,
            bounds.PANIC_WINDOW_PERCENTAGE_MAX,
        ),
        (
            keys.PANIC_THRESHOLD_PERCENTAGE,
            bounds.PANIC_THRESHOLD_PERCENTAGE_MIN,
            bounds.PANIC_THRESHOLD_PERCENTAGE_MAX,
        ),
        (keys.TARGET_UTILIZATION_PERCENTAGE, 1.0, 100.0),
    ):
        if given := annotation.find(annotations):
            key, value = given
            number = _float(value)
            if number is None:
                found.also(errors.invalid_value(value, key))
            elif not low <= number <= high:
                found.also(errors.out_of_bounds(value, f"{low:g}", f"{high:g}", key))
    if given := keys.TARGET.find(annotations):
        key, value = given
        number = _float(value)
        if number is None:
            found.also(errors.invalid_value(value, key))
        elif number < bounds.TARGET_MIN:
            message = f"target {value} should be at least {bounds.TARGET_MIN:g}"
            found.also(errors.generic(message, key))
    if given := keys.TARGET_BURST_CAPACITY.find(annotations):
        key, value = given
        number = _float(value)
        if number is None or (number < 0 and number != -1):
            found.also(errors.invalid_value(value, key))
    return found


def _window(annotations: Annotations) -> FieldErrors | None:
    given = keys.WINDOW.find(annotations)
    if given is None:
        return None
    key, value = given
    seconds = _seconds(value)
    if seconds is None:
        return errors.invalid_value(value, key)
    if not bounds.WINDOW_MIN <= seconds <= bounds.WINDOW_MAX:
        return errors.out_of_bounds(value, "6s", "1h0m0s", key)
    return None if seconds.is_integer() else errors.generic(_SECONDS_ONLY, key)


def _retention(annotations: Annotations) -> FieldErrors | None:
    given = keys.SCALE_TO_ZERO_POD_RETENTION_PERIOD.find(annotations)
    if given is None:
        return None
    key, value = given
    seconds = _seconds(value)
    if seconds is None:
        return errors.invalid_value(value, key)
    if not 0 <= seconds <= bounds.WINDOW_MAX:
        return errors.out_of_bounds(value, "0s", "1h0m0s", key)
    return None


def _scale_down_delay(annotations: Annotations) -> FieldErrors | None:
    given = keys.SCALE_DOWN_DELAY.find(annotations)
    if given is None:
        return None
    key, value = given
    seconds = _seconds(value)
    if seconds is None:
        return errors.invalid_value(value, key)
    if not 0 <= seconds <= bounds.WINDOW_MAX:
        return errors.out_of_bounds(value, "0s", "1h0m0s", key)
    return None if seconds.is_integer() else errors.generic(_SECONDS_ONLY, key)


def _metric(annotations: Annotations) -> FieldErrors | None:
    metric = keys.METRIC.value(annotations)
    if metric is None:
        return None
    kind = keys.CLASS.value(annotations) or KPA
    fits = {KPA: metric in ("concurrency", "rps"), HPA: metric != ""}.get(kind, True)
    return None if fits else errors.invalid_value(metric, keys.METRIC.key)


def _algorithm(annotations: Annotations) -> FieldErrors | None:
    given = keys.METRIC_AGGREGATION_ALGORITHM.find(annotations)
    # Custom autoscalers may have custom values.
    if given is None or keys.CLASS.value(annotations) != KPA:
        return None
    key, value = given
    return None if value in ("", *_ALGORITHMS) else errors.invalid_value(value, key)


def _initial_scale(annotations: Annotations, config: Autoscaler) -> FieldErrors | None:
    given = keys.INITIAL_SCALE.find(annotations)
    if given is None:
        return None
    key, value = given
    number = _int(value)
    if number is None:
        return errors.invalid_value(value, key)
    if number < 0:
        return errors.invalid_value(value, f"{key} must be greater than 0")
    if number == 0 and not config.allow_zero_initial_scale:
        return errors.invalid_value(value, f"{key}=0 not allowed by cluster")
    return None


def _whole_seconds(annotations: Annotations, annotation: AnnotationKey, name: str) -> FieldErrors:
    given = annotation.find(annotations)
    if given is None or not given[1]:
        return FieldErrors()
    key, value = given
    seconds = _seconds(value)
    if seconds is None:
        return errors.invalid_value(value, key)
    if not seconds.is_integer():
        return errors.generic(f"{name}={value} is not at second precision", key)
    if seconds < 0:
        return errors.generic(f"{name}={value} must be positive", key)
    return FieldErrors()


def _seconds(text: str) -> float | None:
    try:
        return duration.parse(text)
    except ValueError:
        return None


def _int(text: str) -> int | None:
    try:
        return int(text, 10) if text.strip() == text and "_" not in text else None
    except ValueError:
        return None


def _float(text: str) -> float | None:
    try:
        return float(text) if text.strip() == text and "_" not in text else None
    except ValueError:
        return None
