"""Answers that would take a page over, break it or deface it, were they anything but data."""

from __future__ import annotations

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "<a href=\"javascript:window.hacked=1\">the answer</a>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<style>* { display: none }</style>",
    "<meta http-equiv=refresh content='0;url=https://example.org/'>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "${window.hacked = 1} {{constructor.constructor('window.hacked=1')()}} `${hacked=1}`",
    "\"); window.hacked = 1; //",
    "'+(window.hacked=1)+'",
    "*/ window.hacked = 1 /* <!-- ]]> -->",
    "line\u2028separator\u2029window.hacked=1",
    "\u202eright to left\u202c \u05d0\u05d1\u05d2 \u0627\u0644\u0639",
    "nothing\x00here\x01\x07\x1b[31m\x7f",
    "w" * 4000,
    "\ufeffcombining Z\u0351\u036b\u0343\u036a\u0302\u034f\u0334 \U0001f469\u200d\U0001f680",
    "__proto__ constructor toString &lt;b&gt; &amp; %3Cscript%3E",
)  # fmt: skip
