"""What docs/samples calls things."""

from harness.base import ROOT

SAMPLES = ROOT / "docs" / "samples"
NAMESPACE, POOL = "recsys", "g5"
MODEL = "home-feed-ranker"

# A folder of its own, because a folder is applied without those in it.
AUTOSCALED_SAMPLES = SAMPLES / "autoscaled"
AUTOSCALED = "similar-items-ranker"
AUTOSCALED_MAXIMUM = 3
