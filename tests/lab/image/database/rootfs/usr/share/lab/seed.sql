-- The worklog database: every kind of object that a dump must carry.
CREATE DATABASE worklog CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE worklog;

CREATE TABLE authors (
  name VARCHAR(64) NOT NULL PRIMARY KEY,
  email VARCHAR(128) NOT NULL
);
CREATE TABLE records (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  title VARCHAR(200) NOT NULL,
  author VARCHAR(64) NOT NULL,
  minutes INT NOT NULL DEFAULT 0,
  body TEXT NOT NULL,
  attachment VARBINARY(64) NULL,
  created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  KEY by_author (author, created_at)
);
CREATE TABLE totals (
  author VARCHAR(64) NOT NULL PRIMARY KEY,
  minutes BIGINT NOT NULL DEFAULT 0
);
CREATE VIEW long_records AS SELECT id, title, minutes FROM records WHERE minutes >= 120;

DELIMITER //
CREATE TRIGGER records_totals AFTER INSERT ON records FOR EACH ROW
BEGIN
  INSERT INTO totals VALUES (NEW.author, NEW.minutes) ON DUPLICATE KEY UPDATE minutes = minutes + NEW.minutes;
END//
CREATE PROCEDURE minutes_of(IN who VARCHAR(64))
BEGIN
  SELECT minutes FROM totals WHERE author = who;
END//
DELIMITER ;

INSERT INTO authors VALUES ('alice', 'alice@example.test'), ('bob', 'bob@example.test'), ('李雷', 'lilei@example.test');
INSERT INTO records (title, author, minutes, body, attachment, created_at)
SELECT CONCAT('记录 / record ', seq), ELT(1 + seq MOD 3, 'alice', 'bob', '李雷'), seq MOD 240,
       CONCAT('It''s line one;\nline two \\ of record ', seq, ' -- not a comment 🛠'), UNHEX(SHA2(seq, 256)),
       '2026-01-01 08:00:00' + INTERVAL seq HOUR
FROM seq_1_to_600;

CREATE USER worklog@'%' IDENTIFIED BY 'worklog-lab';
GRANT ALL ON worklog.* TO worklog@'%';
CREATE USER backup@'%' IDENTIFIED BY 'backup-lab';
GRANT SELECT, RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR, REPLICATION SLAVE, SHOW VIEW, EVENT, TRIGGER ON *.* TO backup@'%';
