"""Methods side by side: crafted at one budget, measured on the same images and victims, in one resumable folder.

```python
import uapgen
from uapgen.compare import compare

victim = uapgen.load_victim("embedded/efficientnet_lite0")
result = compare({"lite0": victim}, "noise,cbgan,sga@procedural", "foolbox", "out", budget=2000, seeds=[0, 1])
for row in result.rows:
    print(row.method, row.fooling_rate.mean, row.floor)
```
"""

from __future__ import annotations

from .compare import compare
from .document import write_report
from .plan import ImportSpec, MethodSpec, parse_import, parse_method, parse_methods, parse_seeds
from .table import rows_of, transfer_matrix

__all__ = [
    "ImportSpec",
    "MethodSpec",
    "compare",
    "parse_import",
    "parse_method",
    "parse_methods",
    "parse_seeds",
    "rows_of",
    "transfer_matrix",
    "write_report",
]
