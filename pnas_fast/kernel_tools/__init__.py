"""Programs that build children in order to look at kernels: cost, inspect, warm, tune."""
