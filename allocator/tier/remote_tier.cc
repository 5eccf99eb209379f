#include "allocator/tier/remote_tier.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

namespace kvasir {
namespace {

using std::chrono::milliseconds;

// Connections that nobody uses: more are closed.
constexpr size_t kIdleMax = 16;
// Read at once from the socket, so that the checksum finds it in the cache.
constexpr size_t kTakeBytes = 256 << 10;

bool InBounds(milliseconds value, milliseconds max) {
  return value >= milliseconds(1) && value <= max;
}

absl::Status CheckOptions(const RemoteTierOptions& options) {
  const RemoteServer& server = options.server;
  if (server.unix_path.empty() == server.host.empty()) {
    return InvalidArgument("server needs either a path or a host: unix_path={} host={}",
                           server.unix_path, server.host);
  }
  if (!server.unix_path.empty() && (server.unix_path[0] != '/' || server.unix_path.size() > 107)) {
    return InvalidArgument("path is not absolute or too long: unix_path={} max=107",
                           server.unix_path);
  }
  if (server.host.size() > 255 || (!server.host.empty() && server.port == 0)) {
    return InvalidArgument("host or port out of bounds: host={} port={}", server.host, server.port);
  }
  if (!InBounds(options.connect_timeout, std::chrono::seconds(60))) {
    return InvalidArgument("time out of bounds: connect_timeout_ms={} min=1 max=60000",
                           options.connect_timeout.count());
  }
  if (!InBounds(options.batch_timeout, std::chrono::minutes(10))) {
    return InvalidArgument("time out of bounds: batch_timeout_ms={} min=1 max=600000",
                           options.batch_timeout.count());
  }
  if (options.requests_in_flight == 0 || options.requests_in_flight > 1024) {
    return InvalidArgument("requests out of bounds: requests_in_flight={} min=1 max=1024",
                           options.requests_in_flight);
  }
  return absl::OkStatus();
}

ReadOutcome OutcomeOf(const absl::Status& status) {
  return absl::IsDeadlineExceeded(status) ? ReadOutcome::kTimeout : ReadOutcome::kFailed;
}

}  // namespace

RemoteTier::RemoteTier(const RemoteTierOptions& options)
    : options_(options), prefix_(fmt::format("kvasir:{:016x}:", options.fingerprint)) {}

absl::StatusOr<std::unique_ptr<RemoteTier>> RemoteTier::Create(const RemoteTierOptions& options) {
  KVASIR_RETURN_IF_ERROR(CheckOptions(options));
  return std::unique_ptr<RemoteTier>(new RemoteTier(options));
}

absl::StatusOr<RemoteTier::Connection> RemoteTier::TakeConnection() {
  while (true) {
    Connection connection;
    {
      MutexLock lock(idle_mutex_);
      if (idle_.empty()) break;
      connection = std::move(idle_.back());
      idle_.pop_back();
    }
    // A server that was restarted has hung up on all of them.
    if (connection->IsQuiet()) return connection;
  }
  return RemoteConnection::Connect(options_.server, options_.connect_timeout);
}

void RemoteTier::ReturnConnection(Connection connection, const absl::Status& status) {
  if (!status.ok()) return;
  MutexLock lock(idle_mutex_);
  if (idle_.size() < kIdleMax) idle_.push_back(std::move(connection));
}

std::string RemoteTier::KeyText(const TierKey& key) const {
  return prefix_ + std::string(key.view());
}

absl::StatusOr<std::vector<int64_t>> RemoteTier::Ask(RemoteConnection& connection,
                                                     std::string_view command,
                                                     std::span<const TierKey> keys,
                                                     int64_t answer_max, Instant deadline) {
  std::vector<int64_t> answers;
  for (size_t sent = 0; answers.size() < keys.size();) {
    std::string text;
    const size_t end = std::min<size_t>(keys.size(), sent + 1024);
    for (; sent < end; ++sent) {
      text += "*2\r\n";
      AppendArgument(text, command);
      AppendArgument(text, KeyText(keys[sent]));
    }
    const iovec part = {text.data(), text.size()};
    KVASIR_RETURN_IF_ERROR(connection.Send(std::span(&part, 1), deadline));
    while (answers.size() < sent) {
      KVASIR_ASSIGN_OR_RETURN(const RemoteReply reply, connection.ReadReply(deadline));
      if (reply.kind == RemoteReply::Kind::kError) return RemoteErrorStatus(reply.text);
      if (reply.kind != RemoteReply::Kind::kInteger || reply.integer < 0 ||
          reply.integer > answer_max) {
        return DataLoss("server answers with no number in bounds: command={} max={}", command,
                        answer_max);
      }
      answers.push_back(reply.integer);
    }
  }
  return answers;
}

absl::Status RemoteTier::SendBlock(RemoteConnection& connection, const WriteItem& item,
                                   BlockChecksum& checksum, Instant deadline) {
  BlockHeader header = SealHeader(options_.fingerprint, item.key, item.parts, checksum);
  std::string head = "*3\r\n";
  AppendArgument(head, "SET");
  AppendArgument(head, KeyText(item.key));
  head += fmt::format("${}\r\n", header.size() + BytesOf(item.parts));
  char end[] = {'\r', '\n'};
  std::vector<iovec> parts = {{head.data(), head.size()}, {header.data(), header.size()}};
  for (const auto& part : item.parts) {
    // The kernel only reads it: iovec has no form for that.
    if (!part.empty()) parts.push_back({const_cast<std::byte*>(part.data()), part.size()});
  }
  parts.push_back({end, sizeof(end)});
  return connection.Send(parts, deadline);
}

absl::Status RemoteTier::WriteAll(RemoteConnection& connection, std::span<const WriteItem> items,
                                  const CancelToken* cancel, Instant deadline, WriteBatch& batch) {
  std::vector<TierKey> keys;
  for (const WriteItem& item : items) keys.push_back(item.key);
  KVASIR_ASSIGN_OR_RETURN(const std::vector<int64_t> there,
                          Ask(connection, "EXISTS", keys, 1, deadline));
  BlockChecksum checksum;
  std::deque<size_t> waiting;  // for the answer
  const auto answer = [&batch](size_t i, absl::Status status) {
    batch.results[i] = std::move(status);
    batch.answered[i] = true;
  };
  const auto take_answer = [&]() -> absl::Status {
    KVASIR_ASSIGN_OR_RETURN(const RemoteReply reply, connection.ReadReply(deadline));
    if (reply.kind != RemoteReply::Kind::kSimple && reply.kind != RemoteReply::Kind::kError) {
      return DataLoss("server answers SET with a value");
    }
    const size_t i = waiting.front();
    waiting.pop_front();
    if (reply.kind == RemoteReply::Kind::kError) {
      answer(i, RemoteErrorStatus(reply.text));
      return absl::OkStatus();
    }
    answer(i, absl::OkStatus());
    ++batch.blocks;
    batch.bytes += BytesOf(items[i].parts);
    return absl::OkStatus();
  };
  for (size_t i = 0; i < items.size(); ++i) {
    absl::Status status =
        IsCancelled(cancel) ? CancelledStatus() : CheckPayloadBytes(BytesOf(items[i].parts));
    if (!status.ok() || there[i] != 0) {
      answer(i, std::move(status));
      continue;
    }
    KVASIR_RETURN_IF_ERROR(SendBlock(connection, items[i], checksum, deadline));
    waiting.push_back(i);
    if (waiting.size() == options_.requests_in_flight) KVASIR_RETURN_IF_ERROR(take_answer());
  }
  while (!waiting.empty()) KVASIR_RETURN_IF_ERROR(take_answer());
  return absl::OkStatus();
}

void RemoteTier::Write(std::span<const WriteItem> items, std::span<absl::Status> results,
                       const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const Stopwatch watch;
  const Instant deadline = SystemClock().Now() + options_.batch_timeout;
  WriteBatch batch = {.results = results, .answered = std::vector<bool>(items.size(), false)};
  absl::StatusOr<Connection> connection = TakeConnection();
  absl::Status status = connection.status();
  if (status.ok()) {
    status = WriteAll(**connection, items, cancel, deadline, batch);
    ReturnConnection(*std::move(connection), status);
  }
  // What has no answer when the connection breaks gets the connection's error.
  for (size_t i = 0; i < items.size(); ++i) {
    if (!batch.answered[i]) results[i] = status;
  }
  counters_.CountWrites(results, batch.blocks, batch.bytes, watch.nanoseconds());
}

absl::StatusOr<ReadOutcome> RemoteTier::ReceiveBlock(RemoteConnection& connection,
                                                     const ReadItem& item, BlockChecksum& checksum,
                                                     Instant deadline) {
  KVASIR_ASSIGN_OR_RETURN(const RemoteReply reply, connection.ReadReply(deadline));
  if (reply.kind == RemoteReply::Kind::kNil) return ReadOutcome::kAbsent;
  if (reply.kind != RemoteReply::Kind::kBulk) return ReadOutcome::kFailed;
  if (reply.bytes < kBlockHeaderBytes) {
    KVASIR_RETURN_IF_ERROR(connection.Skip(reply.bytes, deadline));
    KVASIR_RETURN_IF_ERROR(connection.EndBulk(deadline));
    return ReadOutcome::kCut;
  }
  BlockHeader header;
  KVASIR_RETURN_IF_ERROR(connection.TakeAll(header, deadline));
  const uint64_t payload = reply.bytes - kBlockHeaderBytes;
  ReadOutcome outcome = CheckHeader(header, options_.fingerprint, item.key, payload);
  if (outcome == ReadOutcome::kHit && payload != item.into.size()) {
    outcome = ReadOutcome::kWrongLength;
  }
  if (outcome != ReadOutcome::kHit) {
    KVASIR_RETURN_IF_ERROR(connection.Skip(payload, deadline));
    KVASIR_RETURN_IF_ERROR(connection.EndBulk(deadline));
    return outcome;
  }
  checksum.Begin(header);
  for (std::span<std::byte> left = item.into; !left.empty();) {
    KVASIR_ASSIGN_OR_RETURN(
        const size_t got, connection.Take(left.first(std::min(kTakeBytes, left.size())), deadline));
    checksum.Add(left.first(got));
    left = left.subspan(got);
  }
  KVASIR_RETURN_IF_ERROR(connection.EndBulk(deadline));
  return CheckSum(header, checksum);
}

absl::Status RemoteTier::ReadAll(RemoteConnection& connection, std::span<const ReadItem> items,
                                 std::span<ReadOutcome> results, const CancelToken* cancel,
                                 Instant deadline) {
  BlockChecksum checksum;
  std::vector<TierKey> damaged;
  size_t asked = 0, answered = 0;
  while (answered < items.size()) {
    std::string text;
    for (; asked < items.size() && asked - answered < options_.requests_in_flight; ++asked) {
      if (IsCancelled(cancel)) break;
      text += "*2\r\n";
      AppendArgument(text, "GET");
      AppendArgument(text, KeyText(items[asked].key));
    }
    if (asked == answered) {  // cancelled, and nothing is on its way
      std::fill(results.begin() + static_cast<std::ptrdiff_t>(answered), results.end(),
                ReadOutcome::kCancelled);
      break;
    }
    const iovec part = {text.data(), text.size()};
    if (!text.empty()) KVASIR_RETURN_IF_ERROR(connection.Send(std::span(&part, 1), deadline));
    KVASIR_ASSIGN_OR_RETURN(results[answered],
                            ReceiveBlock(connection, items[answered], checksum, deadline));
    switch (results[answered]) {
      case ReadOutcome::kCut:
      case ReadOutcome::kCorrupt:
      case ReadOutcome::kForeignFormat:
      case ReadOutcome::kForeignKey:
      case ReadOutcome::kOldVersion:
        damaged.push_back(items[answered].key);
        break;
      default:
        break;
    }
    ++answered;
  }
  return damaged.empty() ? absl::OkStatus() : Ask(connection, "DEL", damaged, 1, deadline).status();
}

void RemoteTier::Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
                      const CancelToken* cancel) {
  KVASIR_CHECK(items.size() == results.size(), "a result for each item");
  const Stopwatch watch;
  const Instant deadline = SystemClock().Now() + options_.batch_timeout;
  absl::StatusOr<Connection> connection = TakeConnection();
  if (connection.ok()) {
    std::fill(results.begin(), results.end(), ReadOutcome::kFailed);
    const absl::Status status = ReadAll(**connection, items, results, cancel, deadline);
    ReturnConnection(*std::move(connection), status);
    if (absl::IsDeadlineExceeded(status)) {
      std::replace(results.begin(), results.end(), ReadOutcome::kFailed, ReadOutcome::kTimeout);
    }
  } else {
    std::fill(results.begin(), results.end(), OutcomeOf(connection.status()));
  }
  counters_.CountReads(items, results, watch.nanoseconds());
}

absl::Status RemoteTier::Erase(std::span<const TierKey> keys) {
  const Instant deadline = SystemClock().Now() + options_.batch_timeout;
  KVASIR_ASSIGN_OR_RETURN(Connection connection, TakeConnection());
  const absl::StatusOr<std::vector<int64_t>> erased = Ask(*connection, "DEL", keys, 1, deadline);
  ReturnConnection(std::move(connection), erased.status());
  if (!erased.ok()) return erased.status();
  counters_.CountErases(static_cast<uint64_t>(
      std::count_if(erased->begin(), erased->end(), [](int64_t n) { return n > 0; })));
  return absl::OkStatus();
}

}  // namespace kvasir
