#include "daemon/profiles.h"

#include <system_error>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/small_file.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

absl::StatusOr<std::vector<std::filesystem::path>> JsonFiles(const std::string& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  std::filesystem::directory_iterator entries(folder, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    if (entries->path().extension() == ".json") files.push_back(entries->path());
  }
  if (error) {
    return InvalidArgument("cannot read the profiles: retention.profile_dir={} reason={}", folder,
                           error.message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

absl::StatusOr<std::vector<std::shared_ptr<const core::ModelProfile>>> LoadProfiles(
    const std::string& folder) {
  std::vector<std::shared_ptr<const core::ModelProfile>> profiles;
  if (folder.empty()) return profiles;
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::filesystem::path> files, JsonFiles(folder));
  std::map<std::string, std::string> file_of;  // by weights digest
  for (const std::filesystem::path& path : files) {
    const absl::StatusOr<std::string> text = ReadSmallFile(path.string(), core::kProfileBytesMax);
    if (!text.ok()) return InvalidArgument("cannot read a profile: {}", MessageOf(text.status()));
    absl::StatusOr<core::ModelProfile> profile = core::ParseModelProfile(*text);
    if (!profile.ok()) {
      return InvalidArgument("{}: file={}", MessageOf(profile.status()), path.string());
    }
    const auto [known, added] = file_of.emplace(profile->weights_digest, path.string());
    if (!added) {
      return InvalidArgument("two profiles are of the same weights: file={} other={}",
                             path.string(), known->second);
    }
    profiles.push_back(std::make_shared<const core::ModelProfile>(*std::move(profile)));
  }
  return profiles;
}

}  // namespace kvasir
