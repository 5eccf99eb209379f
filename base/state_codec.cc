#include "base/state_codec.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

#include <xxhash.h>

namespace kvasir {
namespace {

constexpr size_t kHeaderBytes = 24, kChecksumBytes = 16;
constexpr size_t kNameBytesMax = 64;  // of a stranger's name that a message repeats

std::string ChecksumOf(std::string_view bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  return {reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest)};
}

// A stranger's text for a message, where it is a name.
std::string_view Printable(std::string_view text) {
  const bool is_name =
      text.size() <= kNameBytesMax && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
      });
  return is_name ? text : "(no name)";
}

}  // namespace

void AppendNumber(std::string& bytes, uint64_t number) {
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(number >> shift & 0xFF);
}

uint64_t TakeNumber(std::string_view& bytes) {
  uint64_t number = 0;
  for (size_t i = 8; i-- > 0;) number = number << 8 | static_cast<uint8_t>(bytes[i]);
  bytes.remove_prefix(8);
  return number;
}

uint64_t DigestOf(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

std::string SealState(const StateFormat& format, std::string_view owner, std::string_view body) {
  std::string bytes(format.magic);
  AppendNumber(bytes, format.version | uint64_t{owner.size()} << 32);
  AppendNumber(bytes, body.size());
  bytes += owner;
  bytes += body;
  return bytes + ChecksumOf(bytes);
}

absl::StatusOr<std::string_view> OpenState(const StateFormat& format, std::string_view owner,
                                           std::string_view bytes) {
  const std::string_view what = format.what;
  if (bytes.size() > format.bytes_max) {
    return InvalidArgument("{} is too long: bytes={} max={}", what, bytes.size(), format.bytes_max);
  }
  if (bytes.size() < kHeaderBytes + kChecksumBytes) {
    return DataLoss("{} is cut: bytes={} min={}", what, bytes.size(),
                    kHeaderBytes + kChecksumBytes);
  }
  if (!bytes.starts_with(format.magic)) {
    return DataLoss("no {}: magic expected={}", what, format.magic);
  }
  const std::string_view checked = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (ChecksumOf(checked) != bytes.substr(checked.size())) {
    return DataLoss("{} is cut or damaged: checksum differs, bytes={}", what, bytes.size());
  }
  std::string_view rest = checked.substr(format.magic.size());
  const uint64_t version_and_name = TakeNumber(rest);
  const uint64_t body_bytes = TakeNumber(rest);
  if (const auto version = static_cast<uint32_t>(version_and_name); version != format.version) {
    return InvalidArgument("{} is of another version: version={} expected={}", what, version,
                           format.version);
  }
  const uint64_t name_bytes = version_and_name >> 32;
  if (name_bytes > rest.size() || body_bytes != rest.size() - name_bytes) {
    return DataLoss("lengths in {} do not add up: name={} body={} bytes={}", what, name_bytes,
                    body_bytes, rest.size());
  }
  if (const std::string_view name = rest.substr(0, name_bytes); name != owner) {
    return InvalidArgument("{} is of another policy: {}={} name={}", what, format.owner, owner,
                           Printable(name));
  }
  return rest.substr(name_bytes);
}

void StateWriter::Id(uint32_t id) {
  for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(id >> shift & 0xFF);
}

void StateWriter::Text(std::string_view text) {
  Number(text.size());
  bytes_ += text;
}

void StateReader::Fail(absl::Status error) {
  if (status_.ok()) status_ = std::move(error);
}

// Empty where that many are not there.
std::string_view StateReader::Take(const char* field, uint64_t bytes) {
  if (!status_.ok()) return {};
  if (bytes > left_.size()) {
    Fail(
        DataLoss("{} is cut: field={} bytes={} left={}", format_.what, field, bytes, left_.size()));
    return {};
  }
  const std::string_view taken = left_.substr(0, bytes);
  left_.remove_prefix(bytes);
  return taken;
}

uint64_t StateReader::Number(const char* field, uint64_t min, uint64_t max) {
  std::string_view bytes = Take(field, 8);
  if (bytes.empty()) return 0;
  const uint64_t number = TakeNumber(bytes);
  if (number >= min && number <= max) return number;
  Fail(DataLoss("{} is out of bounds: {}={} min={} max={}", format_.what, field, number, min, max));
  return 0;
}

int64_t StateReader::Signed(const char* field, int64_t min, int64_t max) {
  std::string_view bytes = Take(field, 8);
  if (bytes.empty()) return 0;
  const auto number = std::bit_cast<int64_t>(TakeNumber(bytes));
  if (number >= min && number <= max) return number;
  Fail(DataLoss("{} is out of bounds: {}={} min={} max={}", format_.what, field, number, min, max));
  return 0;
}

bool StateReader::Flag(const char* field) {
  const std::string_view bytes = Take(field, 1);
  if (bytes.empty()) return false;
  const auto flag = static_cast<uint8_t>(bytes[0]);
  if (flag > 1) Fail(DataLoss("{} is out of bounds: {}={} min=0 max=1", format_.what, field, flag));
  return flag == 1;
}

uint32_t StateReader::Id(const char* field) {
  const std::string_view bytes = Take(field, 4);
  uint32_t id = 0;
  for (size_t i = bytes.size(); i-- > 0;) id = id << 8 | static_cast<uint8_t>(bytes[i]);
  return id;
}

bool StateReader::Holds(const char* field, uint64_t count, uint64_t entry_bytes) {
  if (!status_.ok()) return false;
  if (count <= left_.size() / entry_bytes) return true;
  Fail(DataLoss("{} has fewer entries than it says: {}={} max={}", format_.what, field, count,
                left_.size() / entry_bytes));
  return false;
}

uint64_t StateReader::Count(const char* field, uint64_t entry_bytes, uint64_t max) {
  const uint64_t count = Number(field, 0, max);
  return Holds(field, count, entry_bytes) ? count : 0;
}

std::string_view StateReader::Text(const char* field) {
  return Take(field, Number(field, 0, format_.bytes_max));
}

StateReader StateReader::Part(const char* field) {
  StateReader part(format_, Text(field));
  part.status_ = status_;
  return part;
}

void StateReader::Expect(const char* field, uint64_t expected) {
  std::string_view bytes = Take(field, 8);
  if (bytes.empty()) return;
  if (const uint64_t number = TakeNumber(bytes); number != expected) {
    Fail(InvalidArgument("{} is of other settings: {}={} expected={}", format_.what, field, number,
                         expected));
  }
}

void StateReader::ExpectText(const char* field, std::string_view expected) {
  const std::string_view text = Text(field);
  if (!status_.ok() || text == expected) return;
  Fail(InvalidArgument("{0} is of another {1}: {1}={2} expected={3}", format_.what, field,
                       Printable(text), expected));
}

absl::Status StateReader::Finish() {
  if (status_.ok() && !left_.empty()) {
    Fail(DataLoss("{} goes on behind its end: bytes={}", format_.what, left_.size()));
  }
  return status_;
}

}  // namespace kvasir
