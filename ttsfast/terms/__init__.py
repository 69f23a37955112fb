"""What losses and kernels share: options, inputs, results, counts."""
