// Small states that outlive a process, as bytes: an envelope, a writer, and a reader that trusts
// nothing it reads.
//
// The envelope says of what a state is, and that it is whole:
//   magic (8 bytes), version u32, length of the owner's name u32, length of the body u64, name,
//   body, XXH3-128 of all before it (canonical)
// all numbers little-endian. The checksum finds damage and no forgery: whoever reads a body checks
// every field of it, and takes memory for what is there, never for what a count says.
//
// Plain values and pure functions; thread-compatible. Cost: one pass over the bytes.
#ifndef KVASIR_BASE_STATE_CODEC_H_
#define KVASIR_BASE_STATE_CODEC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace kvasir {

// What the envelopes of one use have in common.
struct StateFormat {
  std::string_view magic;  // eight bytes
  uint32_t version = 1;
  uint64_t bytes_max = 0;  // of a state with its envelope
  std::string_view what;   // in messages: "learned state"
  std::string_view owner;  // in messages: key of the owner's name
};

std::string SealState(const StateFormat& format, std::string_view owner, std::string_view body);

// The body in `bytes`. Errors: kDataLoss naming what is cut or damaged, kInvalidArgument for
// another owner or version, or more bytes than the format allows.
absl::StatusOr<std::string_view> OpenState(const StateFormat& format, std::string_view owner,
                                           std::string_view bytes);

// XXH3-64: tells settings apart that are too long to be written down. No defence against forgery.
uint64_t DigestOf(std::string_view text);

void AppendNumber(std::string& bytes, uint64_t number);
// REQUIRES: at least eight bytes; takes them off.
uint64_t TakeNumber(std::string_view& bytes);

class StateWriter {
 public:
  void Number(uint64_t number) { AppendNumber(bytes_, number); }
  void Flag(bool flag) { bytes_ += flag ? '\1' : '\0'; }
  void Id(uint32_t id);              // four bytes
  void Text(std::string_view text);  // its length before it
  void Part(const StateWriter& part) { Text(part.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what a StateWriter wrote. The first field that is wrong decides: its error stays, and every
// call after it returns 0 and reads nothing, so that fields are read without a check each and
// Finish() tells. REQUIRES: nothing is changed by what was read before Finish() is OK.
class StateReader {
 public:
  // `format`: for messages. Both must outlive the reader.
  StateReader(const StateFormat& format, std::string_view bytes) : format_(format), left_(bytes) {}

  // Errors: kDataLoss, for a field that is cut or outside [min, max].
  uint64_t Number(const char* field, uint64_t min, uint64_t max);
  int64_t Signed(const char* field, int64_t min, int64_t max);
  bool Flag(const char* field);
  uint32_t Id(const char* field);
  // How many entries of `entry_bytes` or more follow. Errors: also for more than are there.
  uint64_t Count(const char* field, uint64_t entry_bytes, uint64_t max);
  // Whether `count` entries of `entry_bytes` or more are there; else an error.
  bool Holds(const char* field, uint64_t count, uint64_t entry_bytes);
  std::string_view Text(const char* field);
  // A state inside this one. It reports for itself; a failed reader's part has failed as well.
  StateReader Part(const char* field);

  // What the reader was made for. Errors: kInvalidArgument naming both values.
  void Expect(const char* field, uint64_t expected);
  void ExpectText(const char* field, std::string_view expected);

  // For a check that the calls above cannot say; the first error stays.
  void Fail(absl::Status error);

  bool ok() const { return status_.ok(); }
  // The first error, or one where bytes are left.
  absl::Status Finish();

 private:
  std::string_view Take(const char* field, uint64_t bytes);

  const StateFormat& format_;
  std::string_view left_;
  absl::Status status_;
};

}  // namespace kvasir

#endif  // KVASIR_BASE_STATE_CODEC_H_
