// The daemon's end of the command ring: whatever bytes an engine writes into its segment, and
// whenever, the daemon serves what is whole and within bounds, says which value is not, and does
// nothing else. The input is a sequence of an engine's stores and a daemon's turns; a model of what
// was served checks every step. The sanitizer checks that no byte outside the segments is touched.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "ring/command_check.h"
#include "ring/commands.h"
#include "ring/submission_consumer.h"

namespace {

using namespace kvasir;        // NOLINT(google-build-using-namespace): a program of one file
using namespace kvasir::ring;  // NOLINT(google-build-using-namespace)

void Require(bool condition) {
  if (!condition) std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  uint8_t Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  uint32_t Word() {
    const uint32_t low = Byte();
    return low | uint32_t{Byte()} << 8;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

class Session {
 public:
  explicit Session(uint8_t shape)
      : geometry_(shm::RingGeometryFor({.submission_entries = 2U << (shape % 3),
                                        .completion_entries = 2U << (shape / 3 % 3),
                                        .payload_area_bytes = 4096U << (shape / 9 % 2),
                                        .answer_area_bytes = 4096,
                                        .engine_spin_ns = 0,
                                        .first_entry = 0xFFFFFFFDU},
                                       4096, 4096, 4)),
        d_((geometry_.answers_off + geometry_.answer_area_bytes) / 8),
        e_((geometry_.payloads_off + geometry_.payload_area_bytes) / 8),
        memory_(DaemonRingMemory::Create(geometry_, 77, Bytes(d_), Bytes(e_))),
        completions_(memory_),
        submissions_(memory_, completions_),
        buffer_(geometry_.PayloadBytesMax() / 8),
        head_(geometry_.first_entry),
        completed_(geometry_.first_entry) {}

  void Step(Input& input) {
    switch (input.Byte() % 7) {
      case 0:
        return Poke(input.Word() % EBytes(), input.Byte() % 65, input);
      case 1:
        EngineWords().sq_tail.fetch_add(static_cast<uint32_t>(static_cast<int8_t>(input.Byte())));
        return;
      case 2:
        EngineWords().cq_head.fetch_add(static_cast<uint32_t>(static_cast<int8_t>(input.Byte())));
        return;
      case 3:
        return Turn(input.Byte() % 40);
      case 4:
        return Complete(input);
      case 5:
        return SubmitWell(input);
      case 6:
        return Poke(EntryOff(EngineWords().sq_tail.load() - 1) + input.Byte() % 64,
                    1 + input.Byte() % 8, input);
    }
  }

 private:
  static std::byte* Bytes(std::vector<uint64_t>& words) {
    return reinterpret_cast<std::byte*>(words.data());
  }
  size_t EBytes() const { return e_.size() * 8; }
  shm::EngineRingWords& EngineWords() {
    return *reinterpret_cast<shm::EngineRingWords*>(Bytes(e_) + shm::kEngineRingWordsOff);
  }
  const shm::DaemonRingWords& DaemonWords() {
    return *reinterpret_cast<const shm::DaemonRingWords*>(Bytes(d_) + shm::kDaemonRingWordsOff);
  }
  size_t EntryOff(uint32_t counter) const {
    return geometry_.submissions_off + size_t{64} * (counter & (geometry_.submission_entries - 1));
  }

  // ---- the engine
  void Poke(size_t off, size_t bytes, Input& input) {
    for (size_t i = off; i < off + bytes && i < EBytes(); ++i) {
      Bytes(e_)[i] = std::byte{input.Byte()};
    }
  }

  // An entry that is well formed, with a payload where its op has one.
  void SubmitWell(Input& input) {
    const uint32_t off = 64 * (input.Byte() % (geometry_.payload_area_bytes / 64));
    const std::vector<shm::SyncNeedRecord> needs(1 + input.Byte() % 8, {1, 2, 3, 0, 0, 0});
    const std::vector<uint32_t> tokens(input.Byte() % 8, 5);
    const MatchPayload match = *MatchPayload::Make(1, tokens, {}, "s", 2, false);
    std::vector<std::byte> payload;
    shm::SubmissionEntry entry{};
    switch (input.Byte() % 7) {
      case 0:
        entry = MakeSync({1, 2}, 3, {});
        break;
      case 1: {
        entry = MakeSyncMany(needs);
        const auto bytes = std::as_bytes(std::span(needs));
        payload.assign(bytes.begin(), bytes.end());
        break;
      }
      case 2:
        entry = MakePublishPrefix({1, 2});
        break;
      case 3:
        entry = MatchPayload::Entry(input.Word() % 4097);
        for (const auto piece : match.Pieces()) {
          payload.insert(payload.end(), piece.begin(), piece.end());
        }
        break;
      case 4:
        entry = MakeRetrieve({1, 2}, 3, 4, input.Byte() % 64);
        break;
      case 5:
        entry = MakeCloseSequence({3, 2});
        break;
      default:
        entry = MakeTruncate({2, 2}, 9);
    }
    entry.user_data = input.Word();
    entry.payload_bytes = static_cast<uint32_t>(payload.size());
    entry.payload_off = payload.empty() ? 0 : off;
    for (size_t i = 0; i < payload.size(); ++i) {
      Bytes(e_)[geometry_.payloads_off + (off + i) % geometry_.payload_area_bytes] = payload[i];
    }
    const uint32_t tail = EngineWords().sq_tail.load();
    std::memcpy(Bytes(e_) + EntryOff(tail), &entry, sizeof(entry));
    EngineWords().sq_tail.store(tail + 1);
  }

  // ---- the daemon, and what has to hold
  void Turn(uint32_t takes_max) {
    const std::vector<uint64_t> e_before = e_;
    const uint32_t head_before = head_;
    absl::Status status = submissions_.BeginTurn();
    CheckViolation(status);
    if (status.ok()) {
      const uint32_t tail = EngineWords().sq_tail.load();
      Require(tail - head_ <= geometry_.submission_entries);
      absl::StatusOr<Taken> taken = Taken::kCommand;
      for (uint32_t i = 0; i < takes_max && taken.ok() && *taken == Taken::kCommand; ++i) {
        Command command;
        taken = submissions_.Take(&command, std::as_writable_bytes(std::span(buffer_)));
        if (taken.ok() && *taken == Taken::kCommand) CheckCommand(command);
        if (taken.ok() && *taken == Taken::kEmpty) Require(head_ == tail);
      }
      Require(head_ - head_before <= 32);
      CheckViolation(taken.status());
      const TurnEnd end = submissions_.EndTurn();
      if (end == TurnEnd::kIdle) {
        Require(DaemonWords().sq_need_wake.load() == 1);
        Require(*taken == Taken::kNoRoom || EngineWords().sq_tail.load() == head_);
      }
    }
    Require(e_ == e_before);  // the daemon writes nothing of the engine's
    Require(DaemonWords().sq_head.load() == head_);
    Require(completions_.pending() == held_.size());
    Require(completions_.pending() + completions_.unread() <= geometry_.completion_entries);
  }

  void CheckViolation(const absl::Status& status) {
    if (!violation_.ok()) Require(status == violation_);  // for ever
    if (status.ok()) return;
    Require(status.code() == absl::StatusCode::kInvalidArgument);
    violation_ = status;
  }

  void CheckCommand(const Command& command) {
    Require(violation_.ok());
    shm::SubmissionEntry written;
    std::memcpy(&written, Bytes(e_) + EntryOff(head_), sizeof(written));
    Require(std::memcmp(&written, &command.entry, sizeof(written)) == 0);
    Require(CheckEntry(written, geometry_).ok());
    Require(command.payload.size() == written.payload_bytes);
    for (size_t i = 0; i < command.payload.size(); ++i) {
      const size_t at = (written.payload_off + i) % geometry_.payload_area_bytes;
      Require(command.payload[i] == Bytes(e_)[geometry_.payloads_off + at]);
    }
    if (command.op() == shm::CommandOp::kSyncMany) {
      for (const auto& need : SyncNeedsOf(command.payload)) Require(need.seq < geometry_.seq_max);
    }
    if (command.op() == shm::CommandOp::kMatchPrefix) {
      const MatchParts parts = MatchPartsOf(command.payload);
      const auto* const end =
          reinterpret_cast<const std::byte*>(parts.extras.data()) + parts.extras.size_bytes();
      Require(end == command.payload.data() + command.payload.size());
      Require(reinterpret_cast<const std::byte*>(parts.tokens.data()) + parts.tokens.size_bytes() <=
              end);
      Require(parts.record->salt_bytes <= shm::kMatchSaltBytesMax);
    }
    Require(command.ticket.user_data == written.user_data);
    held_.push_back(command.ticket);
    ++head_;
  }

  void Complete(Input& input) {
    if (held_.empty()) return;
    std::swap(held_[input.Byte() % held_.size()], held_.back());
    const CompletionTicket ticket = held_.back();
    held_.pop_back();
    const std::vector<std::byte> answer(input.Word() % (geometry_.answer_area_bytes + 64),
                                        std::byte{0x5A});
    const bool fails = input.Byte() % 2 == 1;
    const std::vector<uint64_t> e_before = e_;
    if (fails) {
      completions_.Fail(ticket, absl::InternalError(absl::string_view(
                                    reinterpret_cast<const char*>(answer.data()), answer.size())));
    } else {
      completions_.Complete(ticket, {{1, 2, 3}, answer});
    }
    Require(e_ == e_before);
    shm::CompletionEntry entry;
    const uint32_t index = completed_ & (geometry_.completion_entries - 1);
    std::memcpy(&entry, Bytes(d_) + geometry_.completions_off + size_t{64} * index, sizeof(entry));
    Require(entry.user_data == ticket.user_data && entry.boot_epoch == 77);
    Require(entry.answer_bytes_max == ticket.answer_bytes_max);
    const bool fits = answer.size() <= ticket.answer_bytes_max;
    const size_t bytes = fails  ? std::min<size_t>(answer.size(), shm::kRingErrorTextBytesMax)
                         : fits ? answer.size()
                                : 0;
    Require(entry.answer_bytes == bytes && (entry.status == 0) == (!fails && fits));
    for (size_t i = 0; i < bytes; ++i) {
      const size_t at = (entry.answer_off + i) % geometry_.answer_area_bytes;
      Require(Bytes(d_)[geometry_.answers_off + at] == std::byte{0x5A});
    }
    ++completed_;
    Require(DaemonWords().cq_tail.load() == completed_);
  }

  const shm::RingGeometry geometry_;
  std::vector<uint64_t> d_, e_;  // exactly as long as the segments
  const DaemonRingMemory memory_;
  CompletionProducer completions_;
  SubmissionConsumer submissions_;
  std::vector<uint64_t> buffer_;
  uint32_t head_, completed_;           // the model's counters
  std::vector<CompletionTicket> held_;  // taken and not completed
  absl::Status violation_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  Session session(input.Byte());
  while (!input.empty()) session.Step(input);
  return 0;
}
