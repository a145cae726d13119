"""Small answers of App Store Connect, one of each kind that can be saved and shown."""

from __future__ import annotations

from typing import Any

METRICS: dict[str, Any] = {
    "version": "1.0.0",
    "insights": {
        "trendingUp": [],
        "regressions": [
            {
                "metricCategory": "LAUNCH",
                "metric": "launchTime",
                "latestVersion": "2.0",
                "referenceVersions": ["1.0", "1.9"],
                "maxLatestVersionValue": 1200,
                "summaryString": "Launches got slower.",
                "highImpact": True,
                "populations": [
                    {
                        "device": "all_iphones",
                        "percentile": "percentile.fifty",
                        "latestVersionValue": 1200,
                        "referenceAverageValue": 600,
                        "deltaPercentage": 100,
                        "summaryString": "Twice as slow.",
                    },
                ],
            },
        ],
    },
    "productData": [
        {
            "platform": "iOS",
            "metricCategories": [
                {
                    "identifier": "LAUNCH",
                    "metrics": [
                        {
                            "identifier": "launchTime",
                            "unit": {"identifier": "milliseconds", "displayName": "ms"},
                            "goalKeys": [{"goalKey": "good", "lowerBound": 0, "upperBound": 1000}],
                            "datasets": [
                                {
                                    "filterCriteria": {
                                        "device": "all_iphones",
                                        "deviceMarketingName": "All iPhones",
                                        "percentile": "percentile.fifty",
                                    },
                                    "recommendedMetricGoal": {"value": 500, "detail": "Faster."},
                                    "points": [
                                        {
                                            "version": "1.10",
                                            "value": 1200,
                                            "goal": "FAIR",
                                            "errorMargin": 1.5,
                                        },
                                        {
                                            "version": "1.9",
                                            "value": 600.25,
                                            "percentageBreakdown": {"value": 1, "subSystemLabel": "UI"},
                                        },
                                        {"version": "1.0"},
                                    ],
                                }
                            ],
                        }
                    ],
                },
                {
                    "identifier": "HANG",
                    "metrics": [
                        {
                            "identifier": "hangRate",
                            "unit": {"identifier": "seconds/hour", "displayName": ""},
                            "datasets": [
                                {
                                    "filterCriteria": {"device": "iPhone14,2"},
                                    "points": [{"version": "1.10", "value": 3}],
                                }
                            ],
                        }
                    ],
                },
            ],
        }
    ],
}
LOGS: dict[str, Any] = {
    "version": "1.0.0",
    "productData": [
        {
            "signatureId": "ab12",
            "diagnosticInsights": [
                {
                    "insightsCategory": "Repeated Writes",
                    "insightsString": "Write \x1b[2Jless.",
                    "insightsURL": "https://developer.apple.com/x",
                }
            ],
            "diagnosticLogs": [
                {
                    "diagnosticMetaData": {
                        "event": "disk writes",
                        "eventDetail": "Total of 1.5 GB",
                        "writesCaused": "1.5 GB",
                        "osVersion": "iPhone OS 14.6 (18F72)",
                        "appVersion": "2.0",
                        "buildVersion": "45",
                        "deviceType": "iPhone13_3",
                        "platformArchitecture": "arm64e",
                    },
                    "callStackTree": [
                        {
                            "callStacks": [
                                {
                                    "callStackRootFrames": [
                                        {
                                            "symbolName": "main",
                                            "binaryName": "Shop",
                                            "sampleCount": 3,
                                            "subFrames": [
                                                {
                                                    "symbolName": "-[Cart save]",
                                                    "binaryName": "Shop",
                                                    "fileName": "Cart.m",
                                                    "lineNumber": "42",
                                                    "isBlameFrame": True,
                                                    "sampleCount": 3,
                                                }
                                            ],
                                        }
                                    ]
                                }
                            ]
                        }
                    ],
                },
                {"diagnosticMetaData": {"buildVersion": "46", "writesCaused": "2 GB"}},
            ],
        },
        {"signatureId": "cd34"},
    ],
}
# how the logs are shown with --callstack
LOGS_WITH_STACKS = """\
signature ab12
  Apple: [Repeated Writes] Write  [2Jless.
  https://developer.apple.com/x
  log 1 of 2, iPhone13_3, iPhone OS 14.6 (18F72), version 2.0 (45), arm64e, disk writes, Total of 1.5 GB
      3 main (in Shop)
    ▶ 3 -[Cart save] (in Shop) Cart.m:42
  log 2 of 2, version (46), 2 GB
    no call stack

signature cd34
  Apple gave no logs for this signature
"""
SIGNATURES: dict[str, Any] = {
    "data": [
        {
            "type": "diagnosticSignatures",
            "id": str(place),
            "attributes": {"diagnosticType": kind, "signature": f"f{place}", "weight": weight, **more},
        }
        for place, (kind, weight, more) in enumerate(
            [
                ("HANGS", 0.25, {"insight": {"direction": "DOWN", "referenceVersions": []}}),
                ("HANGS", 0.5, {"insight": {"direction": "UP", "referenceVersions": []}}),
                ("DISK_WRITES", None, {}),
            ]
        )
    ],
    "links": {"self": "https://x/diagnosticSignatures", "next": "https://x/diagnosticSignatures?cursor=2"},
}
OVERVIEW: dict[str, Any] = {
    "version": "1.0",
    "appMetadata": {"platform": "IOS", "latestVersion": "2.0"},
    "insights": {
        "trendingUp": [],
        "regressions": [
            {
                "metricCategory": "HANG",
                "metric": "hangRate",
                "latestVersion": "2.0",
                "populations": [
                    {
                        "device": "all_iphones",
                        "latestVersionValue": 3,
                        "referenceAverageValue": 2,
                        "deltaPercentage": 50,
                        "summaryString": "All iPhones hang more.",
                    }
                ],
            }
        ],
    },
    "categories": [
        {
            "identifier": "HANG",
            "sections": [
                {
                    "identifier": "hangRate",
                    "unit": {"identifier": "seconds per hour", "displayName": "s/h"},
                    "datasets": [
                        {
                            "filterCriteria": {"device": "all_iphones", "percentile": "percentile.fifty"},
                            "recommendedMetricGoal": {"value": 20},
                        }
                    ],
                }
            ],
        }
    ],
    "signatures": {
        "topHangPoint": [
            {
                "signatureId": "ab",
                "signature": "-[Cart save]",
                "count": 12,
                "weight": 0.5,
                "sourceFile": "Cart.m",
                "lineNumber": "42",
                "trendInfo": "UP",
            }
        ]
    },
}
