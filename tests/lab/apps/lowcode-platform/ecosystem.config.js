// Copyright: (c) 2026, Worklog Maintenance contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict'

module.exports = {
  apps: [{
    name: 'lowcode-platform',
    script: '/srv/lowcode/current/server.js',
    cwd: '/srv/lowcode/current',
    exec_mode: 'fork',
    instances: 1,
    pmx: false, // its measurements wake the application ten times a second
    wait_ready: true,
    listen_timeout: 20000,
    kill_timeout: 30000,
    max_restarts: 5,
    min_uptime: 5000
  }]
}
