#include "bench/texts.h"

#include <array>
#include <bit>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <sodium/crypto_hash_sha256.h>

namespace kvasir::bench {
namespace {

using Json = nlohmann::json;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.is_open() || file.bad()) return NotFound("file cannot be read: path={}", path);
  return bytes;
}

std::string Sha256OfIds(std::span<const uint32_t> ids) {
  std::string bytes;
  for (const uint32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(id >> shift));
  }
  return Sha256Hex(bytes);
}

}  // namespace

const char kTextCatalogue[] = KVASIR_TEXT_CATALOGUE;

std::string Sha256Hex(std::string_view bytes) {
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(bytes.data()),
                     bytes.size());
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

std::string NormaliseLines(std::string_view text, bool join_lines) {
  std::string unix_text;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    unix_text.push_back(text[i]);
  }
  if (!join_lines) return unix_text;
  std::string joined = unix_text;
  for (size_t i = 0; i < unix_text.size(); ++i) {
    const bool alone = (i == 0 || unix_text[i - 1] != '\n') &&
                       (i + 1 == unix_text.size() || unix_text[i + 1] != '\n');
    if (unix_text[i] == '\n' && alone) joined[i] = ' ';
  }
  return joined;
}

std::string_view WithoutCutCharacter(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;                           // inside a character
    const auto ones = static_cast<size_t>(std::countl_one(byte));  // bytes of the character, or 0
    if (ones > back) text.remove_suffix(back);
    break;
  }
  return text;
}

absl::StatusOr<Texts> Texts::Open(const std::string& catalogue, const std::string& folder) {
  KVASIR_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(catalogue));
  Texts texts;
  texts.catalogue_ = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  texts.folder_ = folder;
  if (!texts.catalogue_.contains("files") || !texts.catalogue_.contains("segments")) {
    return InvalidArgument("catalogue of texts has no files or segments: path={}", catalogue);
  }
  return texts;
}

absl::StatusOr<std::string> Texts::File(const std::string& name) const {
  const Json& files = catalogue_["files"];
  if (!files.contains(name)) return NotFound("text is not in the catalogue: file={}", name);
  const std::string path = (std::filesystem::path(folder_) / name).string();
  KVASIR_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  const std::string want = files[name].value("sha256", ""), got = Sha256Hex(bytes);
  if (got != want) {
    return InvalidArgument("text is another one: path={} sha256={} expected={}", path, got, want);
  }
  return bytes;
}

absl::StatusOr<std::vector<uint32_t>> Texts::Segment(const std::string& name,
                                                     const engine::Tokenizer& tokenizer) const {
  const Json& segments = catalogue_["segments"];
  if (!segments.contains(name)) return NotFound("segment is not in the catalogue: name={}", name);
  const Json& segment = segments[name];
  KVASIR_ASSIGN_OR_RETURN(const std::string file, File(segment.value("file", "")));
  const auto offset = segment.value("offset", size_t{0}), bytes = segment.value("bytes", size_t{0});
  if (offset > file.size()) {
    return InvalidArgument("segment begins behind its file: name={} offset={} bytes={}", name,
                           offset, file.size());
  }
  const std::string_view cut = WithoutCutCharacter(std::string_view(file).substr(offset, bytes));
  KVASIR_ASSIGN_OR_RETURN(
      std::vector<uint32_t> ids,
      tokenizer.Encode(NormaliseLines(cut, segment.value("join_lines", false)), false, false));
  const auto count = segment.value("tokens", size_t{0});
  if (ids.size() > count) ids.resize(count);
  const std::string want = segment.value("ids_sha256", ""), got = Sha256OfIds(ids);
  if (got != want) {
    return InvalidArgument(
        "segment has other token ids, so no number is comparable: name={} tokens={} sha256={} "
        "expected={}",
        name, ids.size(), got, want);
  }
  return ids;
}

}  // namespace kvasir::bench
