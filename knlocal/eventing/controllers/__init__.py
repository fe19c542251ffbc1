"""The reconcilers of eventing's kinds; they bring status and data plane in line with the spec."""
