# Copyright: (c) 2026, Worklog Maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx configuration; tools/docs puts the generated module documentation beside the pages of this folder."""

from __future__ import annotations

project = "worklog.maintenance"
copyright = "Worklog Maintenance contributors"
extensions = ["myst_parser", "sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
html_theme = "sphinx_rtd_theme"
html_show_sphinx = False
html_copy_source = False
pygments_style = "ansible"
highlight_language = "YAML+Jinja"
default_role = "any"
myst_heading_anchors = 3
# Nothing is fetched while building.
suppress_warnings = ["ref.ref"]  # labels of ansible-core's own documentation
intersphinx_mapping: dict[str, tuple[str, str]] = {}
