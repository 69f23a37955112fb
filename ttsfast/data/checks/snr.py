"""How far speech stands above its noise, without knowing either apart: WADA-SNR.

Kim and Stern, 2008, "Robust signal-to-noise ratio estimation based on waveform amplitude distribution
analysis": amplitudes of clean speech follow a gamma distribution of shape 0.4, those of noise a normal one;
where a mixture lies between them, the logarithm of its mean against the mean of its logarithms tells.
"""

from __future__ import annotations

import numpy as np

# The statistic ln E|z| - E ln|z| of a sum of both, drawn from those distributions (4 million samples each).
_DECIBELS = (-20, -10, -5, 0, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100)
_STATISTIC = (
    *(0.4097, 0.4123, 0.4241, 0.4620, 0.5438, 0.6676, 0.8127, 0.9561, 1.0852),
    *(1.1949, 1.2851, 1.3578, 1.4635, 1.5304, 1.5729, 1.5996, 1.6163, 1.6270),
)


def wada_snr(magnitudes: np.ndarray) -> float:
    """The ratio in dB, from -20 to 100, of the absolute samples (n,) of a recording.

    Digital zeros say nothing of noise and are left out. 100 where nothing else is there.
    """
    sounding = magnitudes[magnitudes > 0]
    if len(sounding) == 0:
        return 100.0
    statistic = np.log(sounding.mean(dtype=np.float64)) - np.log(sounding).mean(dtype=np.float64)
    return float(np.interp(statistic, _STATISTIC, _DECIBELS))
